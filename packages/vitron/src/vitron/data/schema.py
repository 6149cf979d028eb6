# SPDX-License-Identifier: Apache-2.0
"""One dialogue on disk: a line of ``data.jsonl``, with its pictures and clips as files beside it."""

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
    """A picture or a clip.

    Attributes:
        type: Which of them.
        path: A file, or the files of the frames in order; relative to the data folder, with forward slashes.
        frames: First and last frame that count, both included.
    """

    type: Literal["image", "video"] = "image"
    path: Place | tuple[Place, ...]
    frames: tuple[Position, Position] | None = None

    @model_validator(mode="after")
    def _check(self) -> SampleMedia:
        if self.type == "image" and (not isinstance(self.path, str) or self.frames is not None):
            raise ValueError("a picture is one file and has no frames")
        if not self.path:
            raise ValueError("a clip has one frame at least")
        if self.frames is not None and self.frames[1] < self.frames[0]:
            raise ValueError(f"the last frame must not come before the first, got {list(self.frames)}")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """All files."""
        return (self.path,) if isinstance(self.path, str) else self.path


class SampleRegion(_Model):
    """A region that the messages speak of.

    Attributes:
        media: Which of the media it lies on.
        region: Where; its ``frame`` is the frame of a clip. A reference to a mask has no place here.
    """

    media: Position = 0
    region: Region

    @model_validator(mode="after")
    def _check(self) -> SampleRegion:
        if self.region.kind == "ref":
            raise ValueError("a region on disk is drawn: write the mask itself instead of a reference")
        return self


class MaskTarget(_Model):
    """The true masks of one call.

    Attributes:
        call: Its position among all calls of the dialogue.
        media: Which of the media they lie on.
        masks: One for each frame in which the thing shows, told apart by ``frame``.
    """

    call: Position = 0
    media: Position = 0
    masks: tuple[MaskRegion, ...] = ()


class Targets(_Model):
    """The truth, beside the messages themselves.

    Attributes:
        masks: Of calls.
        boxes: A box, or one for each frame by its ``frame``.
        span: First and last frame, both included.
        captions: Of people, each right.
        answers: Of people, each right.
        image: File of the picture that an edit should give.
        source_caption: What the picture before an edit shows.
    """

    masks: tuple[MaskTarget, ...] = ()
    boxes: tuple[BoxRegion, ...] = ()
    span: tuple[Position, Position] | None = None
    captions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    image: Place | None = None
    source_caption: str | None = None


class Sample(_Model):
    """One dialogue.

    Attributes:
        id: Its name, once in a data set.
        task: What it teaches, as ``"referring_segmentation"``.
        messages: In order; parts and calls as in :class:`vitron.data.Message`.
        media: Pictures and clips.
        regions: Places on them.
        targets: The truth.
        split: Which part of the data set it belongs to.
        seed: What a drawn sample was drawn from.
        group: A part of the task that is scored apart.
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
                    raise ValueError(
                        f"a message speaks of medium {part.media}, and there are {len(self.media)}"
                    )
                if part.type == "region" and part.region >= len(self.regions):
                    raise ValueError(
                        f"a message speaks of region {part.region}, and there are {len(self.regions)}"
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
