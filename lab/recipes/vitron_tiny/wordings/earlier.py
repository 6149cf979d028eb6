# SPDX-License-Identifier: Apache-2.0
"""Wordings of requests about an image of an earlier turn; the slot ``thing`` is a noun phrase with "the"."""

from __future__ import annotations

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["EARLIER"]

_IMAGES = {"first": "(first|original)", "before": "(previous|earlier)"}
_HELD_OUT = {"first": ("very first", "original"), "before": ("preceding", "earlier")}


def _segment(image: str, rare: str, held_out: str) -> Family:
    return family(
        requests=f"""
        (segment|mask|outline|highlight|select|mark|cut out) {{thing}} in the {image} (image|picture|photo)
        (make|give me) a mask of {{thing}} in the {image} image
        go back to the {image} (image|picture) and (segment|mark) {{thing}}
        """,
        statements=f"""
        in the {image} (image|picture|photo), (segment|mark|mask|highlight) {{thing}}
        I (want|need) a mask of {{thing}} in the {image} (image|picture)
        """,
        held_out=f"""
        could you outline {{thing}} as it was in the {held_out} image
        I'd like {{thing}} segmented, but in the {held_out} picture
        on the {rare} photo, delineate {{thing}}
        put a mask over {{thing}} of the {held_out} image
        take the {held_out} image and isolate {{thing}}
        use the {rare} picture to segment {{thing}}
        with the {held_out} image again: mark {{thing}}
        do a segmentation of {{thing}}, {held_out} image please
        can I get {{thing}} cut out of the {held_out} image
        return to the {held_out} photo, highlight {{thing}} there
        """,
    )


def _remove(image: str, rare: str, held_out: str) -> Family:
    return family(
        requests=f"""
        (remove|delete|erase|take out|get rid of) {{thing}} (in|from) the {image} (image|picture|photo)
        go back to the {image} (image|picture) and (remove|delete|erase) {{thing}}
        """,
        statements=f"""
        (in|from) the {image} (image|picture|photo), (remove|delete|erase) {{thing}}
        I (don't|do not) want {{thing}} in the {image} (image|picture)
        """,
        held_out=f"""
        could you do away with {{thing}} in the {held_out} image
        I'd like {{thing}} taken out, but in the {held_out} picture
        on the {rare} photo, wipe {{thing}} away
        please clear {{thing}} out of the {held_out} image
        take the {held_out} image and take out {{thing}}
        use the {rare} picture and eliminate {{thing}}
        with the {held_out} image again: remove {{thing}}
        have {{thing}} removed, {held_out} image please
        can I get the {held_out} image without {{thing}}
        return to the {held_out} photo, delete {{thing}} there
        """,
    )


EARLIER: dict[str, Family] = {
    **{f"segment_{key}": _segment(image, *_HELD_OUT[key]) for key, image in _IMAGES.items()},
    **{f"remove_{key}": _remove(image, *_HELD_OUT[key]) for key, image in _IMAGES.items()},
}
