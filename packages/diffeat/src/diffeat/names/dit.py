# SPDX-License-Identifier: Apache-2.0
"""The activations of a diffusion transformer, in execution order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from diffeat.names.blocks import Place, attentions, basic_block, is_joint, joint_block, single_block
from diffeat.names.taps import Tap


@dataclass(frozen=True, slots=True)
class Family:
    """Properties of a transformer that its structure does not show.

    Attributes:
        item: Position of the image stream in the output of a two-stream block.
        text_first: Whether joint sequences start with text.
        in_paper: Whether the authors' code names its activations.
    """

    item: int = 1
    text_first: bool = True
    in_paper: bool = False


FAMILIES = {
    "PixArtTransformer2DModel": Family(in_paper=True),
    "HunyuanDiT2DModel": Family(in_paper=True),
    "FluxTransformer2DModel": Family(in_paper=True),
    "Flux2Transformer2DModel": Family(),
    "SD3Transformer2DModel": Family(text_first=False),
    "QwenImageTransformer2DModel": Family(),
    "WanTransformer3DModel": Family(),
}
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
            :data:`FAMILIES` are read by structure alone: a joint attention makes a joint block.
    """
    class_name = type(model).__name__
    family = FAMILIES.get(class_name, Family())
    is_ours = not family.in_paper
    has_joint = any(is_joint(a) for _, run in runs(model) for a in attentions(run[0]).values())
    number = 0
    for name, run in runs(model):
        for index, block in enumerate(run):
            place = Place(f"{name}.{index}", number)
            number += 1
            found = attentions(block)
            if any(is_joint(a) for a in found.values()) and "attn" in found:
                yield from joint_block(
                    place, block, item=family.item, text_first=family.text_first, is_ours=is_ours
                )
            elif has_joint and set(found) == {"attn"}:
                yield from single_block(place, block, item=family.item, is_ours=is_ours)
            else:
                for tap in basic_block(place, block, is_ours=is_ours):
                    yield _mark(tap, class_name)


def _mark(tap: Tap, class_name: str) -> Tap:
    if tap.name.kind != "out" or class_name not in _NO_OUT_IN_PAPER:
        return tap
    return replace(tap, is_ours=True)
