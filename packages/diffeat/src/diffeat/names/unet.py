# SPDX-License-Identifier: Apache-2.0
"""The activations of a U-Net, in execution order."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from diffeat.names.blocks import Place, basic_block, is_attention, self_attention
from diffeat.names.grammar import ActivationName, Part, Stage
from diffeat.names.taps import Source, Tap

_SAMPLERS: tuple[tuple[Part, str], ...] = (("downsampler", "downsamplers"), ("upsampler", "upsamplers"))


def is_unet(model: nn.Module) -> bool:
    """Whether a model has the three stages of a diffusers U-Net."""
    return all(
        isinstance(getattr(model, name, None), nn.Module) for name in ("down_blocks", "up_blocks", "conv_in")
    )


def unet_taps(model: nn.Module) -> Iterator[Tap]:
    """Walk a U-Net in execution order.

    Args:
        model: A diffusers U-Net; its weights are not read, so they may lie on the meta device.

    Source: arXiv 2410.03558, Sec. 3; names as in the authors' configurations.
    """
    yield _end("in", "conv_in", is_input=True)
    yield _end("after-conv-in", "conv_in")
    for level, block in enumerate(_children(model, "down_blocks")):
        yield from _level(block, f"down_blocks.{level}", "down", level)
    middle = getattr(model, "mid_block", None)
    if isinstance(middle, nn.Module):
        yield from _middle(middle)
    for level, block in enumerate(_children(model, "up_blocks")):
        yield from _level(block, f"up_blocks.{level}", "up", level)
    yield _end("out", "conv_out")


def _end(kind: str, path: str, *, is_input: bool = False) -> Tap:
    port = "input" if is_input else "output"
    return Tap(name=ActivationName("unet", kind), sources=(Source(path=path),), port=port, layout="image")


def _children(module: nn.Module, name: str) -> list[nn.Module]:
    found = getattr(module, name, None)
    return list(found) if isinstance(found, nn.ModuleList) else []


def _level(block: nn.Module, path: str, stage: Stage, level: int) -> Iterator[Tap]:
    vits = _children(block, "attentions")
    for repeat, res in enumerate(_children(block, "resnets")):
        yield from _residual(res, f"{path}.resnets.{repeat}", stage, level, repeat)
        if repeat < len(vits):
            yield from _vit(vits[repeat], f"{path}.attentions.{repeat}", stage, level, repeat)
    for part, attribute in _SAMPLERS:
        if _children(block, attribute):
            name = ActivationName(part, "out", stage, level)
            yield Tap(name=name, sources=(Source(path=f"{path}.{attribute}.0"),), layout="image")


def _middle(block: nn.Module) -> Iterator[Tap]:
    vits = _children(block, "attentions")
    for repeat, res in enumerate(_children(block, "resnets")):
        if repeat > 0 and repeat <= len(vits):
            # one ViT has no index; several are numbered like repeats
            index = None if len(vits) == 1 else repeat - 1
            yield from _vit(vits[repeat - 1], f"mid_block.attentions.{repeat - 1}", "mid", None, index)
        yield from _residual(res, f"mid_block.resnets.{repeat}", "mid", None, repeat)


def _residual(res: nn.Module, path: str, stage: Stage, level: int | None, repeat: int) -> Iterator[Tap]:
    if isinstance(getattr(res, "conv2", None), nn.Module):
        increment = ActivationName("res", "increment", stage, level, repeat)
        yield Tap(name=increment, sources=(Source(path=f"{path}.conv2"),), layout="image")
    out = ActivationName("res", "out", stage, level, repeat)
    yield Tap(name=out, sources=(Source(path=path),), layout="image")


def _vit(vit: nn.Module, path: str, stage: Stage, level: int | None, repeat: int | None) -> Iterator[Tap]:
    for b, block in enumerate(_children(vit, "transformer_blocks")):
        place = Place(f"{path}.transformer_blocks.{b}", b, stage, level, repeat, frame=path)
        yield from basic_block(place, block)
    if is_attention(vit):
        # attention directly on the feature map, as in unconditional and DeepFloyd U-Nets
        place = Place(path, 0, stage, level, repeat, frame=path)
        is_added = isinstance(getattr(vit, "add_k_proj", None), nn.Module)
        taps = self_attention(place, path)
        yield from taps if not is_added else (tap for tap in taps if tap.port != "map")
    name = ActivationName("vit", "out", stage, level, repeat)
    yield Tap(name=name, sources=(Source(path=path),), layout="image")
