# SPDX-License-Identifier: Apache-2.0
"""Settings of an evaluation: a method on one axis, a data set on the other."""

from __future__ import annotations

from dataclasses import dataclass

from itaclip.config import ITACLIPConfig
from itaclip.methods import METHODS, Names, find_method, origin
from itaclip.text.classes import BACKGROUND, ClassList

# of the shipped lists, names that the lists of SCLIP do not have; first names alone in sets not listed here
_NOT_IN_SCLIP = {
    "voc21": ("person in hat", "body"),
    "voc20": ("person in hat", "body"),
    "coco-object": ("person in hat",),
}
_SEVERAL_IN_SCLIP = ("person", "television", "television monitor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a method and a data set decide together.

    Attributes:
        method: Name of the method.
        dataset: Name of the data set; ``None`` for images of one's own.
        config: Configuration.
        names: Names of each class that the method uses: all of the shipped list, those of the lists of
            SCLIP, or the first only.
        texts: Whether definitions or synonyms are part of the method.
        published: Whether the method's authors publish just these settings for the data set.
        source: Where the settings are from, or what fills the gap; a sentence without a full stop.
    """

    method: str
    dataset: str | None
    config: ITACLIPConfig
    names: Names
    texts: bool
    published: bool
    source: str

    def class_list(self) -> ClassList:
        """Return the classes of the data set with the names that the method uses.

        Raises:
            ValueError: If there is no data set.
        """
        if self.dataset is None:
            raise ValueError("images of one's own have no class list: name the classes")
        shipped = ClassList.shipped(self.dataset)
        if self.names == "all":
            return shipped
        several = self.names == "sclip" and self.dataset in _NOT_IN_SCLIP
        rows: list[tuple[str, ...]] = []
        for row in shipped.classes[int(shipped.background) :]:
            keeps = several and row[0] in _SEVERAL_IN_SCLIP
            dropped = _NOT_IN_SCLIP[self.dataset] if keeps else row[1:]
            rows.append(tuple(name for name in row if name not in dropped))
        if not shipped.background:
            return ClassList(tuple(rows))
        # one set of words for both sets in SCLIP, fewer than in the list of ITACLIP for VOC21
        words = ClassList.shipped("coco-object").classes[0] if several else (BACKGROUND,)
        return ClassList((words, *rows), background=True)


def resolve(method: str = "itaclip", dataset: str | None = None) -> Settings:
    """Return the settings of a method, for a data set or for any image.

    The configuration is the one that the method's authors publish for the data set. A method never changes
    the data set itself: its images, label maps and classes.

    Args:
        method: One of :func:`method_names`.
        dataset: One of :data:`itaclip.methods.DATASETS`; ``None`` for images of one's own.

    Raises:
        ValueError: If there is no such method or data set.

    Example:
        >>> resolve("sclip", "voc21").config.logit_scale
        65.0
        >>> resolve("itaclip", "voc21").texts, resolve("sclip", "voc21").texts
        (True, False)
    """
    found = find_method(method)
    published, source = origin(method, dataset)
    return Settings(
        method=method,
        dataset=dataset,
        config=ITACLIPConfig.preset(method, dataset=dataset),
        names=found.names,
        texts=found.texts,
        published=published,
        source=source,
    )


def method_names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(METHODS)
