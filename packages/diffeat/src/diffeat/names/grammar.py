# SPDX-License-Identifier: Apache-2.0
"""The grammar of activation names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from typing import Literal, cast, get_args

Stage = Literal["down", "mid", "up"]
Part = Literal["unet", "res", "vit", "downsampler", "upsampler", "vae", "attn", "module"]

STAGES: tuple[Stage, ...] = get_args(Stage)

# kinds in the order in which one basic block computes them; the order of names follows it
BLOCK_KINDS = (
    "q",
    "k",
    "v",
    "self-q",
    "self-k",
    "self-v",
    "self-map",
    "cross-q",
    "cross-k",
    "cross-v",
    "cross-map",
    "attn-out",
    "self2-q",
    "self2-k",
    "self2-v",
    "self2-map",
    "self2-out",
    "norm-out",
    "paper-out",
    "ffn-inner",
    "out",
)
_UNET_KINDS = ("in", "after-conv-in", "out")
_RES_KINDS = ("increment", "out")

_PLACE = re.compile(
    r"(?P<stage>down|mid|up)(?:-level(?P<level>\d+))?(?:-repeat(?P<repeat>\d+))?-(?P<rest>.+)"
)
_VIT = re.compile(r"vit(?:-block(?P<block>\d+))?-(?P<kind>.+)")
_RES = re.compile(r"res-(?P<kind>increment|out)")
_SAMPLER = re.compile(r"(?P<part>downsampler|upsampler)-out")
_MEAN = re.compile(r"(?P<kind>self|cross)-attn")
_END = re.compile(r"unet-(?P<kind>in|after-conv-in|out)")
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")


@total_ordering
@dataclass(frozen=True, slots=True)
class ActivationName:
    """Position of an activation inside a denoiser.

    All indices count from 0 in execution order. ``level`` is the index of the resolution inside its stage, so
    ``up-level0`` is the *lowest* resolution of the up stage. Names sort in execution order, except inside the
    single-stream blocks of Flux, whose branches run side by side; there a listing gives the order.

    Attributes:
        part: ``"unet"`` for the two ends; ``"res"``, ``"vit"``, ``"downsampler"``, ``"upsampler"`` for the
            modules; ``"vae"`` for the decoded image; ``"attn"`` for mean maps of a stage; ``"module"`` for
            the output of any module, named by its dotted path.
        kind: Kind of the activation, such as ``"self-q"``, ``"ffn-inner"``, ``"increment"`` or ``"out"``;
            the dotted path when ``part`` is ``"module"``.
        stage: ``"down"``, ``"mid"`` or ``"up"``; ``None`` at the ends and in transformers.
        level: Resolution inside the stage; ``None`` in the middle and in transformers.
        repeat: Module pair inside the level; ``None`` if there is only one.
        block: Basic block inside the ViT module or the transformer; ``None`` for the module as a whole.

    Examples:
        >>> name = ActivationName.parse("up-level1-repeat0-vit-block0-cross-q")
        >>> name.stage, name.level, name.block, name.kind
        ('up', 1, 0, 'cross-q')
        >>> str(name)
        'up-level1-repeat0-vit-block0-cross-q'

    Source: arXiv 2410.03558, Sec. 3 (the taxonomy); the spelling is that of the authors' configurations.
    """

    part: Part
    kind: str
    stage: Stage | None = None
    level: int | None = None
    repeat: int | None = None
    block: int | None = None

    @classmethod
    def parse(cls, text: str) -> ActivationName:
        """Read a name.

        Args:
            text: A name such as ``"mid-vit-block3-self-k"``, or a dotted module path such as
                ``"time_embedding.linear_1"``.

        Raises:
            ValueError: If ``text`` follows neither the grammar nor the form of a module path.
        """
        name = _parse_placed(text) or _parse_plain(text)
        if name is None:
            raise ValueError(
                f"an activation name reads like 'up-level1-repeat0-vit-block0-cross-q', 'vit-block3-out' or "
                f"a dotted module path, got {text!r}; list the names of a model with list_activations"
            )
        return name

    @property
    def is_map(self) -> bool:
        """Whether the activation is an attention map, whose last axis runs over keys."""
        return self.kind.endswith("map")

    @property
    def is_text(self) -> bool:
        """Whether the activation lies on text tokens and so has no position in the image."""
        return self.kind in {"cross-k", "cross-v"}

    @property
    def family(self) -> str:
        """The family of the paper's taxonomy.

        Source: arXiv 2410.03558, Sec. 3.
        """
        if self.part == "vit":
            return _vit_family(self.kind, is_block=self.block is not None)
        if self.part == "res":
            return "inter-module" if self.kind == "out" else "res-internal"
        if self.part in {"downsampler", "upsampler"}:
            return "inter-module"
        return {"unet": "ends", "vae": "ends", "attn": "attention-mean"}.get(self.part, "module")

    def __str__(self) -> str:
        if self.part == "module":
            return self.kind
        words: list[str] = []
        if self.stage is not None:
            words.append(self.stage)
        if self.level is not None:
            words.append(f"level{self.level}")
        if self.repeat is not None:
            words.append(f"repeat{self.repeat}")
        if self.part == "attn":
            return "-".join([*words, self.kind, self.part])
        words.append(self.part)
        if self.block is not None:
            words.append(f"block{self.block}")
        return "-".join([*words, self.kind])

    def __lt__(self, other: ActivationName) -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[int, int, float, int, float, int, str]:
        inf = float("inf")
        if self.part == "module":
            return (9, 0, 0, 0, 0, 0, self.kind)
        if self.part in {"unet", "vae", "attn"}:
            is_start = self.part == "unet" and self.kind != "out"
            position = {"unet": 5, "vae": 6, "attn": 7}[self.part]
            rank = _UNET_KINDS.index(self.kind) if self.part == "unet" else 0
            return (0 if is_start else position, 0, 0, 0, 0, rank, str(self))
        # a transformer without stages sorts as one stage of its own
        stage = 1 if self.stage is None else 1 + STAGES.index(self.stage)
        repeat: float = inf if self.repeat is None else self.repeat
        if self.stage == "mid" and self.repeat is None:
            repeat = 0.5  # the one ViT of the middle runs between the two residual blocks
        part = ("res", "vit", "downsampler", "upsampler").index(self.part)
        block: float = inf if self.block is None else self.block
        kinds = BLOCK_KINDS if self.part == "vit" else _RES_KINDS
        return (stage, self.level or 0, repeat, part, block, kinds.index(self.kind), "")


Names = str | ActivationName | Iterable[str | ActivationName]


def _vit_family(kind: str, *, is_block: bool) -> str:
    if kind in {"out", "paper-out"}:
        return "vit-block" if is_block else "inter-module"
    if kind.startswith("cross"):
        return "cross-attention"
    if kind in {"ffn-inner", "norm-out"}:
        return "feed-forward"
    return "self-attention"


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _parse_placed(text: str) -> ActivationName | None:
    """Read a name inside a U-Net stage."""
    place = _PLACE.fullmatch(text)
    if place is None:
        return None
    stage = cast("Stage", place["stage"])
    level, repeat, rest = _number(place["level"]), _number(place["repeat"]), place["rest"]
    if level is None and repeat is None and (mean := _MEAN.fullmatch(rest)):
        return ActivationName("attn", mean["kind"], stage)
    if (level is None) != (stage == "mid"):
        return None
    if repeat is None and level is not None and (sampler := _SAMPLER.fullmatch(rest)):
        return ActivationName(cast("Part", sampler["part"]), "out", stage, level)
    if repeat is not None and (res := _RES.fullmatch(rest)):
        return ActivationName("res", res["kind"], stage, level, repeat)
    if (repeat is not None or stage == "mid") and (vit := _VIT.fullmatch(rest)):
        return _vit_name(vit, stage, level, repeat)
    return None


def _parse_plain(text: str) -> ActivationName | None:
    """Read a name without a stage."""
    if text == "vae-out":
        return ActivationName("vae", "out")
    if end := _END.fullmatch(text):
        return ActivationName("unet", end["kind"])
    if mean := _MEAN.fullmatch(text):
        return ActivationName("attn", mean["kind"])
    if vit := _VIT.fullmatch(text):
        return _vit_name(vit, None, None, None)
    if _PATH.fullmatch(text):
        return ActivationName("module", text)
    return None


def _vit_name(
    vit: re.Match[str], stage: Stage | None, level: int | None, repeat: int | None
) -> ActivationName | None:
    block, kind = _number(vit["block"]), vit["kind"]
    is_known = kind in BLOCK_KINDS if block is not None else kind == "out" and stage is not None
    return ActivationName("vit", kind, stage, level, repeat, block) if is_known else None
