# SPDX-License-Identifier: Apache-2.0
"""The plainest requests: what users type first, in one wording each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from recipes.vitron_tiny import editing, generation, images, videos
from recipes.vitron_tiny.composing import Composer, Step, Subject
from recipes.vitron_tiny.scenes import Draw, View, noun

__all__ = ["PLAIN_IMAGE", "PLAIN_VIDEO", "Maker", "hello", "recolour", "remove", "segment", "track"]

Maker = Callable[[Draw, View, Composer], Step | None]


def hello(draw: Draw, shown: View, state: Composer) -> Step:
    """Greet."""
    _, reply = generation.CHAT["greeting"]
    return Step(task="no_call", text="hello", reply=reply, group="greeting")


def segment(draw: Draw, shown: View, state: Composer) -> Step:
    """Segment an object."""
    target, name = _named(draw, shown)
    return images.segment(draw, shown, state, name, (target,), text=f"segment {name}")


def remove(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Remove an object."""
    target, name = _named(draw, shown)
    subject = Subject(targets=(target,), phrase=name)
    return editing.edit(draw, shown, state, "remove", subject, text=f"remove {name}")


def recolour(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Give an object another colour."""
    target, name = _named(draw, shown)
    to = editing.draw_change(draw, shown, target, "recolour")
    subject = Subject(targets=(target,), phrase=name)
    return editing.edit(draw, shown, state, "recolour", subject, text=f"make {name} {to}", to=to)


def track(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Track an object."""
    target, name = _named(draw, shown)
    return videos.track(shown, state, Subject(targets=(target,), phrase=name), text=f"track {name}")


def _named(draw: Draw, shown: View) -> tuple[int, str]:
    target = int(draw.rng.integers(len(shown.scene.things)))
    return target, f"the {noun(shown.scene.things[target])}"


PLAIN_IMAGE: Mapping[Maker, float] = {hello: 0.15, segment: 0.4, remove: 0.25, recolour: 0.2}
PLAIN_VIDEO: Mapping[Maker, float] = {hello: 0.15, track: 0.85}
