# SPDX-License-Identifier: Apache-2.0
"""The activations of a diffusion transformer, in execution order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from diffeat.names.blocks import (
    Place,
    attentions,
    basic_block,
    is_joint,
    joint_block,
    shared_block,
    single_block,
)
from diffeat.names.taps import Tap


@dataclass(frozen=True, slots=True)
class Family:
    """Properties of a transformer that its structure does not show.

    Attributes:
        item: Position of the image stream in the output of a block; ``None`` finds it by its tokens.
        text_first: Whether joint sequences start with text; ``None`` if it is not known, so that they are
            refused.
        in_paper: Whether the authors' code names its activations.
        is_shared: Whether text and image run through the same weights as one sequence in all blocks.
        image_runs: Names of lists of blocks over the image alone.
        text_runs: Names of lists of blocks over the text alone, which have no place in the image.
    """

    item: int | None = 1
    text_first: bool | None = True
    in_paper: bool = False
    is_shared: bool = False
    image_runs: tuple[str, ...] = ()
    text_runs: tuple[str, ...] = ()


_REFINED = replace(
    Family(item=0, is_shared=True),
    image_runs=("noise_refiner",),
    text_runs=("context_refiner", "siglip_refiner"),
)
FAMILIES = {
    "PixArtTransformer2DModel": Family(item=0, in_paper=True),
    "HunyuanDiT2DModel": Family(item=0, in_paper=True),
    "FluxTransformer2DModel": Family(in_paper=True),
    "Flux2Transformer2DModel": Family(),
    "ChromaTransformer2DModel": Family(),
    "SD3Transformer2DModel": Family(text_first=False),
    "QwenImageTransformer2DModel": Family(),
    "SanaTransformer2DModel": Family(item=0),
    "Lumina2Transformer2DModel": _REFINED,
    "ZImageTransformer2DModel": replace(_REFINED, text_first=False),
    "WanTransformer3DModel": Family(item=0),
    "HunyuanVideoTransformer3DModel": Family(item=0, text_first=False),
    "CogVideoXTransformer3DModel": Family(item=0, is_shared=True),
    "MochiTransformer3DModel": Family(item=0, text_first=False),
}
_UNKNOWN = Family(item=None, text_first=None)
# outputs of blocks that the authors' code never stores
_NO_OUT_IN_PAPER = frozenset({"HunyuanDiT2DModel"})


def runs(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """The lists of repeated attention blocks among a model's children, in order of definition."""
    return [
        (name, child)
        for name, child in model.named_children()
        if isinstance(child, nn.ModuleList) and len(child) > 0 and attentions(child[0])
    ]


def is_transformer(model: nn.Module) -> bool:
    """Whether a model is a stack of attention blocks."""
    return bool(runs(model))


def transformer_taps(model: nn.Module) -> Iterator[Tap]:
    """Walk the blocks of a transformer; a second list of blocks continues the numbers of the first.

    Args:
        model: A diffusers transformer of any class; its weights may lie on the meta device. Classes outside
            :data:`FAMILIES` are read by structure alone: a joint attention makes a joint block, and a
            sequence that is longer than the image is refused when it is read.
    """
    class_name = type(model).__name__
    family = FAMILIES.get(class_name, _UNKNOWN)
    has_joint = any(is_joint(a) for _, run in runs(model) for a in attentions(run[0]).values())
    number = 0
    for name, run in runs(model):
        if name in family.text_runs:
            continue
        for index, block in enumerate(run):
            place = Place(f"{name}.{index}", number)
            number += 1
            for tap in _block(place, block, family, has_joint=has_joint, run=name):
                found = replace(tap, text_first=family.text_first)
                yield replace(found, is_ours=True) if _is_ours(tap, class_name) else found


def _block(place: Place, block: nn.Module, family: Family, *, has_joint: bool, run: str) -> Iterator[Tap]:
    is_ours, found = not family.in_paper, attentions(block)
    if family.is_shared:
        has_text = run not in family.image_runs
        yield from shared_block(place, block, item=family.item, has_text=has_text, is_ours=is_ours)
    elif is_joint(next(iter(found.values()))):
        yield from joint_block(place, block, item=family.item, is_ours=is_ours)
    elif has_joint and set(found) == {"attn"}:
        yield from single_block(place, block, item=family.item, is_ours=is_ours)
    else:
        yield from basic_block(place, block, item=family.item, is_ours=is_ours)


def _is_ours(tap: Tap, class_name: str) -> bool:
    return tap.is_ours or (tap.name.kind == "out" and class_name in _NO_OUT_IN_PAPER)
