# SPDX-License-Identifier: Apache-2.0
"""The data models exchanged between a language model, the specialists and a server.

All models are frozen and refuse unknown fields. Coordinates are fractions of the image's width and height,
x to the right, y downwards, so that a region needs no image size and is never scaled twice.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vitron.protocol.escape import without_surrogates
from vitron.protocol.rle import decompress

__all__ = [
    "BoxRegion",
    "Instruction",
    "Invocation",
    "Issue",
    "MaskRegion",
    "PointsRegion",
    "PolygonRegion",
    "ReferenceRegion",
    "Region",
    "ScribbleRegion",
    "Signal",
    "Span",
    "SpecialistSpec",
    "Turn",
    "json_schemas",
]

MAX_PIXELS = 100_000_000
MAX_POINTS = 4096

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Point = tuple[Fraction, Fraction]
Points = Annotated[tuple[Point, ...], Field(min_length=1, max_length=MAX_POINTS)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Index = Annotated[int, Field(ge=0, strict=True)]
ArgValue = bool | int | float | str
MediaKind = Literal["image", "video", "masks"]
SpanKind = Literal["text", "stray", "invocation", "signal", "mark", "broken"]
IssueCode = Literal[
    "unclosed_tag",
    "mismatched_tag",
    "broken_tag",
    "repeated_tag",
    "unknown_module",
    "missing_module",
    "missing_instruction",
    "bad_region",
    "bad_call",
    "shortened",
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Region(_Model):
    """Fields of all kinds.

    Attributes:
        frame: Frame of a video on which the region was drawn, from 0; ``None`` is the first, or the image.
    """

    frame: Index | None = None


class BoxRegion(_Region):
    """A box: ``x0 < x1`` and ``y0 < y1``, fractions of width and height."""

    kind: Literal["box"] = "box"
    x0: Fraction
    y0: Fraction
    x1: Fraction
    y1: Fraction

    @model_validator(mode="after")
    def _check(self) -> BoxRegion:
        if self.x1 <= self.x0 or self.y1 <= self.y0:
            raise ValueError(
                "a box needs its right edge beyond the left and its bottom beyond the top, got "
                f"[{self.x0:g}, {self.y0:g}, {self.x1:g}, {self.y1:g}]"
            )
        return self

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.x0, self.y0, self.x1, self.y1


class PolygonRegion(_Region):
    """The inside of a closed line through at least three points, by the even-odd rule."""

    kind: Literal["polygon"] = "polygon"
    points: Annotated[tuple[Point, ...], Field(min_length=3, max_length=MAX_POINTS)]


class MaskRegion(_Region):
    """A mask as COCO's run lengths.

    Attributes:
        size: Height and width of the mask, which need not be those of the image.
        counts: Run lengths, plain or as COCO's compressed string.
        brush: Whether a hand painted it, which may mean more than what it covers; else it is exact.
    """

    kind: Literal["mask"] = "mask"
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    counts: str | tuple[Index, ...]
    brush: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> MaskRegion:
        height, width = self.size
        if height * width > MAX_PIXELS:
            raise ValueError(f"a mask has at most {MAX_PIXELS} pixels, got {height} x {width}")
        total = sum(decompress(self.counts) if isinstance(self.counts, str) else self.counts)
        if total != height * width:
            raise ValueError(f"run lengths must add up to {height} x {width} = {height * width}, got {total}")
        return self


class PointsRegion(_Region):
    """Clicks on the object, or, where ``positive`` is false, beside it."""

    kind: Literal["points"] = "points"
    points: Points
    positive: tuple[bool, ...] = ()

    @field_validator("positive")
    @classmethod
    def _check(cls, value: tuple[bool, ...], info: ValidationInfo) -> tuple[bool, ...]:
        points = info.data.get("points", value)
        if value and len(value) != len(points):
            raise ValueError(
                f"must be empty or hold one value per point, got {len(value)} for {len(points)} points"
            )
        if value and not any(value):
            raise ValueError("at least one point must be positive")
        # one form for one meaning: all positive is an empty tuple
        return () if all(value) else value


class ScribbleRegion(_Region):
    """Strokes of a pen, each a line through its points."""

    kind: Literal["scribble"] = "scribble"
    strokes: Annotated[tuple[Points, ...], Field(min_length=1, max_length=256)]


class ReferenceRegion(_Region):
    """A mask or a user's region of this conversation, by its handle: ``mask_2``, ``region_1``."""

    kind: Literal["ref"] = "ref"
    name: Annotated[str, Field(pattern=r"^(mask|region)_[1-9][0-9]{0,5}$")]


Region = Annotated[
    BoxRegion | PolygonRegion | MaskRegion | PointsRegion | ScribbleRegion | ReferenceRegion,
    Field(discriminator="kind"),
]


class Instruction(_Model):
    """An instruction, as ``verb: text``.

    Attributes:
        verb: One of the module's verbs, in lower case; empty if there is none.
        text: Object, or whole sentence; surrounding white space is removed, half a surrogate pair replaced.
    """

    verb: Annotated[str, Field(pattern=r"^[a-z0-9 _-]*$", max_length=64)] = ""
    text: str = ""

    @field_validator("verb", "text")
    @classmethod
    def _strip(cls, value: str) -> str:
        return without_surrogates(value.strip())

    @model_validator(mode="after")
    def _check(self) -> Instruction:
        if not self.verb and not self.text:
            raise ValueError("an instruction needs a verb or a text, got neither")
        return self


class Invocation(_Model):
    """A call of one module.

    Attributes:
        module: Name of the module, as ``image_segmentation``.
        instruction: Instructions; video editing takes two.
        args: Further arguments by name, such as ``{"input": "img_1", "seed": 3}``.
        region: Region to work on.
        frames: First and last frame, both included, of the part of a video to work on.
        source: Start and end in the message; ``None`` if it comes from elsewhere.
    """

    module: Name
    instruction: tuple[Instruction, ...] = ()
    args: dict[Name, ArgValue] = Field(default_factory=dict)
    region: Region | None = None
    frames: tuple[Index, Index] | None = None
    source: tuple[Index, Index] | None = None

    @model_validator(mode="after")
    def _check(self) -> Invocation:
        if self.frames is not None and self.frames[1] < self.frames[0]:
            raise ValueError(f"the last frame must not come before the first, got {list(self.frames)}")
        return self


class Span(_Model):
    """A piece of the message; all pieces joined are the message.

    Attributes:
        kind: ``text`` is shown to the user; ``stray`` is a tag outside any call, ``invocation`` and
            ``signal`` were parsed, ``mark`` ends a turn, ``broken`` holds calls that cannot be parsed, one
            or several in a row.
        start: Position of its first character.
        end: Position behind its last.
        raw: The original characters.
    """

    kind: SpanKind
    start: Index
    end: Index
    raw: str


class Issue(_Model):
    """A problem in a message, or ``shortened``: turns that the model did not read.

    Attributes:
        code: Kind of the problem.
        message: One sentence.
        start: Position of the problem in the message.
        invocation: Position of the call in the turn that it affects; such a call does not run.
    """

    code: IssueCode
    message: str
    start: Index = 0
    invocation: Index | None = None


class Signal(_Model):
    """A signal token behind a call.

    Attributes:
        kind: ``specific`` to the task, or ``shared`` by all tasks.
        index: Number of the token, from 0.
        invocation: Position of the call it belongs to; ``None`` before the first call, and behind one that
            cannot be parsed.
    """

    kind: Literal["specific", "shared"]
    index: Annotated[int, Field(ge=0, le=15, strict=True)]
    invocation: Index | None = None


class Turn(_Model):
    """One assistant message, parsed.

    Attributes:
        text: Text for the user.
        invocations: Calls, in order.
        signals: Signal tokens, in order.
        spans: Pieces of the message.
        issues: Problems.
    """

    text: str = ""
    invocations: tuple[Invocation, ...] = ()
    signals: tuple[Signal, ...] = ()
    spans: tuple[Span, ...] = ()
    issues: tuple[Issue, ...] = ()

    def refusal(self, index: int) -> str | None:
        """Return the problem for which a call must not run, or ``None``."""
        return next((issue.message for issue in self.issues if issue.invocation == index), None)


class SpecialistSpec(_Model):
    """Description of a specialist.

    Attributes:
        name: Name, such as ``sam-video``.
        summary: One line.
        tasks: Names of the modules that it serves.
        inputs: Kinds of media that it takes.
        outputs: Kinds of media that it returns.
        args: JSON schema of its arguments.
        memory_bytes: Estimate of its memory while loaded.
        licence: SPDX name, or a short sentence, of code and weights.
        deterministic: Whether the same request and seed give the same bytes.
        uses_signals: Whether it reads signal embeddings.
        needs_region: Whether it works on a region; without one from the user, the mask of the call's signals
            is used, if the model has a mask head.
        preference: Rank among specialists of one module, the highest is tried first: 30 for a model that the
            user set, 20 for the mask head of the conversation's model, 10 for a bundled model for any image,
            0 by default, -10 for a bundled model for drawn images only.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
    summary: str
    tasks: Annotated[tuple[Name, ...], Field(min_length=1)]
    inputs: tuple[MediaKind, ...] = ()
    outputs: Annotated[tuple[MediaKind, ...], Field(min_length=1)]
    args: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    licence: str
    deterministic: bool = True
    uses_signals: bool = False
    needs_region: bool = False
    preference: Annotated[int, Field(ge=-100, le=100)] = 0


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each model, by name.

    Example:
        >>> sorted(json_schemas())
        ['Invocation', 'Region', 'SpecialistSpec', 'Turn']
    """
    models = {"Turn": Turn, "Invocation": Invocation, "SpecialistSpec": SpecialistSpec}
    found = {name: model.model_json_schema() for name, model in models.items()}
    return found | {"Region": TypeAdapter[Any](Region).json_schema()}
