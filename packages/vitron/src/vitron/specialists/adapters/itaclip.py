# SPDX-License-Identifier: Apache-2.0
"""Segmentation by text with itaclip."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.specialists.adapters.base import DRAWN_ONLY, Adapter, as_masks, free, is_loaded, media_of
from vitron.specialists.instances import is_plural, split_instances
from vitron.specialists.protocol import Action, Request, Result

# backgrounds in photographs, and in the drawn images of the bundled model
_GROUND = ("background", "wall", "floor", "sky", "ground", "building", "tree", "grass", "road", "room")
_DRAWN_GROUND = ("leaves", "gradient", "waves", "clouds", "tiles")
_DRAWN_COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "black")
_DRAWN_SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent")

_ALL = {"everything", "all", "panoptic"}
_ORDERS = {
    "leftmost": "left",
    "rightmost": "right",
    "topmost": "top",
    "highest": "top",
    "bottommost": "bottom",
    "lowest": "bottom",
    "largest": "largest",
    "biggest": "largest",
    "smallest": "smallest",
}

_RELATION = re.compile(
    r"\b(that|which|who|to the (left|right) of|next to|in front of|left of|right of|above|below|under|behind|"
    r"beside|near|between|on|in|at|with|from|over)\b.*"
)
_FILLER = re.compile(r"\b(the|a|an|this|these|those|my|its|all|each|every|please|one|object|on|left|right)\b")
_MOST_PARTS, _SMALLEST = 64, 2000  # most parts of one class; smallest share of an image that a part covers


class ItaclipSegmenter(Adapter):
    """Segments the classes named in a text, anywhere in an image.

    A CLIP model knows class names but no relations: the text behind "left of", "on" and the like is cut off,
    and words such as "leftmost" choose among the parts of the mask. A region chooses the parts it touches.
    """

    name = "itaclip"
    summary = "segments whatever can be named"
    tasks = ("image_segmentation",)
    inputs = ("image",)
    outputs = ("masks",)
    packages = ("itaclip", "torch", "open_clip")
    bundled = "tiny-shapes"
    bundled_bytes = 40_000_000
    bundled_preference = DRAWN_ONLY
    _segmenter: Any = None

    def load(self, device: str, dtype: str) -> None:
        """Load the model: a name that itaclip knows, or ``architecture:weights`` of open_clip."""
        from itaclip import ITACLIP

        backbone, _, pretrained = self.model_name.partition(":")
        self._segmenter = ITACLIP.from_pretrained(
            backbone,
            pretrained=pretrained or None,
            device=device,
            dtype=dtype,  # pyright: ignore[reportArgumentType]  # checked there
        )

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Segment; see :class:`vitron.specialists.Specialist`."""
        segmenter = is_loaded(self._segmenter, self.name)
        image = media_of(request, self.name).frames[0]
        wanted = [each for action in request.actions for each in _wanted(action)]
        if not wanted:
            raise UnsupportedRequestError("itaclip needs a class name")
        classes = list(dict.fromkeys(name for name, _ in wanted))
        try:
            segmenter.set_classes(classes, background=self._ground(classes))
        except ValueError as error:  # the model does not know some words
            raise UnsupportedRequestError(f"itaclip: {error}") from error
        labels = np.asarray(segmenter.predict(np.ascontiguousarray(image)).labels)
        masks, names = list[NDArray[np.bool_]](), list[str]()
        for name, order in wanted:
            mask = _choose(labels == classes.index(name) + 1, order, request.mask)
            if mask.any():
                parts = [part[0] for part in split_instances(mask[None])] if is_plural(request) else [mask]
                masks += parts
                names += [name] * len(parts)
        if not masks:
            raise UnsupportedRequestError(f"itaclip finds no {' and no '.join(classes)}")
        return Result(as_masks(masks, names), note=", ".join(names))

    def _ground(self, classes: list[str]) -> list[str]:
        """Return background words for everything but the classes."""
        if self.is_named:
            return [word for word in _GROUND if word not in classes]
        words = {word for name in classes for word in name.split()}
        unknown = words - self._known()
        if unknown:
            raise UnsupportedRequestError(
                f"the small model of itaclip does not know {', '.join(sorted(unknown))}"
            )
        # objects of other colours, or else of other shapes, are background too
        if words & set(_DRAWN_COLOURS):
            others = [f"{colour} thing" for colour in _DRAWN_COLOURS if colour not in words]
        else:
            others = [shape for shape in _DRAWN_SHAPES if shape not in words]
        return [*_DRAWN_GROUND, *others]

    def _known(self) -> set[str]:
        read = getattr(getattr(self._segmenter.tokenizer, "tokenizer", None), "get_vocab", dict)
        return set(read())

    def unload(self) -> None:
        """Delete the model."""
        self._segmenter = None
        free()


def class_name(text: str) -> tuple[str, str | None]:
    """Return the class name of an expression without articles and relations, and its choice among several.

    Example:
        >>> class_name("the leftmost bicycle that leans on the wall")
        ('bicycle', 'left')
    """
    plain = " ".join(re.findall(r"[a-z0-9'-]+", text.lower()))
    order = next((_ORDERS[word] for word in plain.split() if word in _ORDERS), None)
    if order is None:
        side = re.search(r"\b(left|right|top|bottom)\b", plain)
        order = side[1] if side and not re.search(r"\b(left|right) of\b", plain) else None
    kept = _RELATION.sub("", plain)
    kept = " ".join(word for word in _FILLER.sub(" ", kept).split() if word not in _ORDERS)
    return " ".join(word for word in kept.split() if word not in ("top", "bottom")), order


def _wanted(action: Action) -> list[tuple[str, str | None]]:
    """Return the classes that one instruction names."""
    parts = re.split(r",|;|\band\b", action.text)
    found = [class_name(part) for part in parts]
    if action.name == "panoptic" or _ALL & set(action.text.lower().split()):
        found = [(name, order) for name, order in found if name and name not in _ALL]
    return [(name, order) for name, order in found if name]


def _choose(
    mask: NDArray[np.bool_], order: str | None, region: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return the parts of a class that a word or a region chooses; all without either."""
    if order is None and region is None:
        return mask
    from scipy import ndimage

    labelled: Any = ndimage.label(mask)
    parts: NDArray[np.int32] = labelled[0]
    areas = np.bincount(parts.ravel(), minlength=1)
    least = max(1, mask.size // _SMALLEST)
    large = [int(part) for part in np.argsort(-areas) if part and areas[part] >= least][:_MOST_PARTS]
    if region is not None:
        touched = [part for part in large if ((parts == part) & region).any()]
        return np.asarray(np.isin(parts, touched), dtype=np.bool_)
    if not large:
        return mask
    centres = {part: [float(each.mean()) for each in np.nonzero(parts == part)] for part in large}
    keys = {
        "left": lambda part: centres[part][1],
        "right": lambda part: -centres[part][1],
        "top": lambda part: centres[part][0],
        "bottom": lambda part: -centres[part][0],
        "largest": lambda part: -areas[part],
        "smallest": lambda part: areas[part],
    }
    return np.asarray(parts == min(large, key=keys[str(order)]), dtype=np.bool_)
