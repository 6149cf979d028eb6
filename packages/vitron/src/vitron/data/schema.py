# SPDX-License-Identifier: Apache-2.0
"""One conversation on disk: a line of ``data.jsonl``, with its images and videos as files beside it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vitron.protocol.contract import BoxRegion, MaskRegion, Region
from vitron.protocol.messages import Message

__all__ = ["MaskTarget", "Sample", "SampleMedia", "SampleRegion", "Targets"]

Position = Annotated[int, Field(ge=0, strict=True)]
Place = Annotated[str, Field(min_length=1, max_length=1024)]
Split = Literal["train", "val", "test"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SampleMedia(_Model):
    """An image or a video.

    Attributes:
        type: Kind of the medium.
        path: File, or the files of the frames in order; relative to the data folder, with forward slashes.
        frames: First and last frame in use, both included.
    """

    type: Literal["image", "video"] = "image"
    path: Place | tuple[Place, ...]
    frames: tuple[Position, Position] | None = None

    @model_validator(mode="after")
    def _check(self) -> SampleMedia:
        if self.type == "image" and (not isinstance(self.path, str) or self.frames is not None):
            raise ValueError("an image is one file and has no frames")
        if not self.path:
            raise ValueError("a video has at least one frame")
        if self.frames is not None and self.frames[1] < self.frames[0]:
            raise ValueError(f"the last frame must not come before the first, got {list(self.frames)}")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of all files."""
        return (self.path,) if isinstance(self.path, str) else self.path


class SampleRegion(_Model):
    """A region of the messages.

    Attributes:
        media: Position of the region's medium.
        region: Shape; its ``frame`` is the frame of a video. References to masks are not allowed.
    """

    media: Position = 0
    region: Region

    @model_validator(mode="after")
    def _check(self) -> SampleRegion:
        if self.region.kind == "ref":
            raise ValueError("a region on disk must not be a reference: write the mask itself")
        return self


class MaskTarget(_Model):
    """True masks of one call.

    Attributes:
        call: Position among all calls of the conversation.
        media: Position of the medium.
        masks: One mask for each frame in which the object is visible, with its ``frame``.
    """

    call: Position = 0
    media: Position = 0
    masks: tuple[MaskRegion, ...] = ()


class Targets(_Model):
    """Targets beside the messages themselves.

    Attributes:
        masks: True masks of calls.
        boxes: True box, or one for each frame with its ``frame``.
        span: First and last frame, both included.
        captions: True captions.
        answers: True answers.
        image: File of the true edited image.
        source_caption: Caption of the image before the edit.
    """

    masks: tuple[MaskTarget, ...] = ()
    boxes: tuple[BoxRegion, ...] = ()
    span: tuple[Position, Position] | None = None
    captions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    image: Place | None = None
    source_caption: str | None = None


class Sample(_Model):
    """One conversation.

    Attributes:
        id: Name, unique in a data set.
        task: Task name, such as ``"referring_segmentation"``.
        messages: Messages in order; see :class:`vitron.protocol.messages.Message`.
        media: Images and videos.
        regions: Regions of the messages.
        targets: Targets.
        split: Part of the data set.
        seed: Random seed of a drawn sample.
        group: Part of the task that is scored separately.
    """

    id: Annotated[str, Field(min_length=1, max_length=256)]
    task: Annotated[str, Field(min_length=1, max_length=64)]
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    media: Annotated[tuple[SampleMedia, ...], Field(max_length=64)] = ()
    regions: Annotated[tuple[SampleRegion, ...], Field(max_length=256)] = ()
    targets: Targets = Targets()
    split: Split = "train"
    seed: int | None = None
    group: str = ""

    @model_validator(mode="after")
    def _check(self) -> Sample:
        for message in self.messages:
            for part in message.content:
                if part.type == "media" and part.media >= len(self.media):
                    raise ValueError(f"a message names medium {part.media}, and there are {len(self.media)}")
                if part.type == "region" and part.region >= len(self.regions):
                    raise ValueError(
                        f"a message names region {part.region}, and there are {len(self.regions)}"
                    )
        placed = [(each.media, "region") for each in self.regions]
        placed += [(each.media, "mask") for each in self.targets.masks]
        for media, what in placed:
            if media >= len(self.media):
                raise ValueError(f"a {what} lies on medium {media}, and there are {len(self.media)}")
        calls = sum(len(message.calls) for message in self.messages)
        for target in self.targets.masks:
            if target.call >= calls:
                raise ValueError(f"a mask belongs to call {target.call}, and there are {calls}")
        return self
