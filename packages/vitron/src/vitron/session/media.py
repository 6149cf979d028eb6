# SPDX-License-Identifier: Apache-2.0
"""The media of a conversation and the regions that its user drew, by their handles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vitron.errors import PlanError, RegionError
from vitron.protocol.contract import MediaKind, ReferenceRegion, Region
from vitron.protocol.media import Artefact
from vitron.protocol.messages import HANDLE_PREFIXES, PlacedRegion, region_handle
from vitron.protocol.regions.convert import box_in_pixels, mask_to_region
from vitron.protocol.regions.raster import rasterise

__all__ = ["ConversationMedia", "MediaByHandle"]

Size = tuple[int, int]


class ConversationMedia:
    """Images, videos and masks as ``img_1``, ``vid_1``, ``mask_1``, and the user's regions as ``region_1``.

    Handles count each kind in order of arrival, and are never given twice. A region is a fraction of its
    medium: it is valid on any other medium of the same size, as an edited image is.

    Attributes:
        artefacts: All media, by handle; messages refer to them by position, from 0.
        placed: Regions of the user on their media; messages refer to them by position, from 0.
    """

    def __init__(self) -> None:
        self.artefacts = dict[str, Artefact]()
        self.placed = list[PlacedRegion]()
        self._drawn = list[Region]()  # as the user gave them, without references

    def copy(self) -> ConversationMedia:
        """Return an independent copy."""
        other = ConversationMedia()
        other.artefacts = dict(self.artefacts)
        other.placed, other._drawn = list(self.placed), list(self._drawn)
        return other

    @property
    def kinds(self) -> dict[str, MediaKind]:
        """Kind of each medium, by handle, in order."""
        return {handle: each.kind for handle, each in self.artefacts.items()}

    @property
    def sizes(self) -> dict[str, Size]:
        """Height and width of each medium, and of the medium of each region, by handle."""
        sizes = {handle: each.size for handle, each in self.artefacts.items()}
        for position, region in enumerate(self.placed):
            height, width = region.mask.shape
            sizes[region_handle(position)] = (height, width)
        return sizes

    @property
    def latest(self) -> int | None:
        """Position of the latest image or video."""
        found = [position for position, kind in enumerate(self.kinds.values()) if kind != "masks"]
        return found[-1] if found else None

    def add(self, artefact: Artefact) -> str:
        """Add a medium, and return its handle."""
        handle = next_handle(self.kinds, artefact.kind)
        self.artefacts[handle] = artefact
        return handle

    def place(self, regions: Sequence[Region], new: Sequence[Artefact] = ()) -> list[int]:
        """Add regions of the user on the latest image or video.

        Args:
            regions: Regions of one message.
            new: Media of that message, which are not added yet.

        Returns:
            Positions of the regions.

        Raises:
            PlanError: If a reference does not fit. No region is added then.
            RegionError: If there is no image or video, or a region does not fit it. No region is added then.
        """
        known = [*self.artefacts.values(), *new]
        on = [position for position, each in enumerate(known) if each.kind != "masks"]
        if regions and not on:
            raise RegionError("a region needs an image or a video, but this conversation has none")
        found = [self.resolve(region, known[on[-1]], "the latest image or video") for region in regions]
        first = len(self.placed)
        self.placed += [
            PlacedRegion(
                media=on[-1], mask=mask, frame=region.frame or 0, box=box_in_pixels(region, mask.shape)
            )
            for region, mask in found
        ]
        self._drawn += [region for region, _ in found]
        return list(range(first, len(self.placed)))

    def extend(self, placed: Sequence[PlacedRegion]) -> None:
        """Add regions that are placed already."""
        self.placed += placed
        self._drawn += [mask_to_region(each.mask, frame=each.frame) for each in placed]

    def resolve(self, region: Region, artefact: Artefact, name: str) -> tuple[Region, NDArray[np.bool_]]:
        """Return a region without references, and as a mask of an image or of one frame of a video.

        Args:
            region: Region; a reference to a mask becomes that mask, one to a region what the user drew.
            artefact: Image or video.
            name: Name of the image or video in error messages.

        Returns:
            The region, and its mask, ``(H, W)``.

        Raises:
            PlanError: If a reference is unknown, or belongs to media of another size.
            RegionError: If the video has no such frame.
        """
        if not isinstance(region, ReferenceRegion):
            return region, self._draw(region, artefact, name)
        handle, sizes = region.name, self.sizes
        if handle not in sizes:
            raise PlanError(f"there is no {handle} in this conversation")
        if sizes[handle] != artefact.size:
            raise PlanError(
                f"{handle} is a region of {_pixels(sizes[handle])} pixels, and {name} has "
                f"{_pixels(artefact.size)}: name media of that size"
            )
        if handle in self.artefacts:
            mask = self.artefacts[handle].joint_mask(region.frame or 0)
            found: Region = mask_to_region(mask, frame=region.frame)
            self._check_frame(found, artefact, name)
            return found, mask
        drawn = self._drawn[int(handle.rsplit("_", 1)[1]) - 1]
        if region.frame is not None:
            drawn = drawn.model_copy(update={"frame": region.frame})
        return drawn, self._draw(drawn, artefact, name)

    def _draw(self, region: Region, artefact: Artefact, name: str) -> NDArray[np.bool_]:
        self._check_frame(region, artefact, name)
        return rasterise(region, *artefact.size)

    def _check_frame(self, region: Region, artefact: Artefact, name: str) -> None:
        frame = region.frame or 0
        if frame >= artefact.num_frames:
            raise RegionError(f"{name} has {artefact.num_frames} frames, but no frame {frame}")


class MediaByHandle(dict[str, Artefact]):
    """Media by handle; a handle that is not there is a ``KeyError`` that says which are."""

    def __missing__(self, handle: str) -> Artefact:
        there = f"it has {', '.join(self)}" if self else "it has no media"
        raise KeyError(
            f"there is no {handle} in this conversation, {there}: a call that was not made, or failed, "
            "has no result"
        )


def next_handle(kinds: Mapping[str, MediaKind], kind: MediaKind) -> str:
    """Return the next handle of a kind of media.

    Args:
        kinds: Kind of each existing medium, by handle.
        kind: Kind of the new one.

    Example:
        >>> next_handle({"img_1": "image", "mask_1": "masks"}, "image")
        'img_2'
    """
    return f"{HANDLE_PREFIXES[kind]}_{1 + list(kinds.values()).count(kind)}"


def _pixels(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
