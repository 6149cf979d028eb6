# SPDX-License-Identifier: Apache-2.0
"""The activations inside one basic block, found by its structure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from diffeat.names.grammar import ActivationName, Stage
from diffeat.names.taps import Source, Tap

FEED_FORWARD = ("ff", "ffn", "img_mlp", "mlp", "feed_forward", "ff_image")
ATTENTIONS = ("attn", "attn1", "attn2", "self_attn", "cross_attn", "self_attention", "cross_attention")


@dataclass(frozen=True, slots=True)
class Place:
    """Position of a basic block.

    Attributes:
        path: Dotted path of the block.
        index: Number of the block in its ViT or transformer.
        stage: Stage of a U-Net.
        level: Level of a U-Net.
        repeat: Repeat of a U-Net.
        frame: Path of the module whose input spans the token grid.
    """

    path: str
    index: int
    stage: Stage | None = None
    level: int | None = None
    repeat: int | None = None
    frame: str | None = None

    def name(self, kind: str) -> ActivationName:
        """The name of an activation of ``kind`` in this block."""
        return ActivationName("vit", kind, self.stage, self.level, self.repeat, self.index)

    def tap(self, kind: str, *sources: Source, **options: Any) -> Tap:
        """A tap of ``kind`` on modules inside this block."""
        return Tap(name=self.name(kind), sources=sources, frame=self.frame, **options)


def attentions(block: nn.Module) -> dict[str, nn.Module]:
    """The attention modules of a block by attribute name, in the order in which blocks call them."""
    return {name: getattr(block, name) for name in ATTENTIONS if is_attention(getattr(block, name, None))}


def is_attention(module: object) -> bool:
    """Whether a module has projections of queries, keys and values under diffusers' names."""
    return isinstance(module, nn.Module) and (hasattr(module, "to_q") or hasattr(module, "to_qkv_mlp_proj"))


def is_joint(attention: nn.Module) -> bool:
    """Whether an attention projects text into the image's own sequence."""
    return isinstance(getattr(attention, "add_q_proj", None), nn.Module)


def projections(path: str, *, is_cross: bool) -> dict[str, tuple[Source, ...]]:
    """Sources of queries, keys and values of the attention at ``path``, fused or not."""
    if is_cross:
        return {
            "q": (Source(path=f"{path}.to_q"),),
            "k": (Source(path=f"{path}.to_k"), Source(path=f"{path}.to_kv", part=(0, 2))),
            "v": (Source(path=f"{path}.to_v"), Source(path=f"{path}.to_kv", part=(1, 2))),
        }
    return {
        letter: (Source(path=f"{path}.to_{letter}"), Source(path=f"{path}.to_qkv", part=(i, 3)))
        for i, letter in enumerate("qkv")
    }


def self_attention(place: Place, path: str, prefix: str = "self-", **options: Any) -> Iterator[Tap]:
    """Queries, keys, values and map of an attention of image tokens to themselves."""
    for letter, sources in projections(path, is_cross=False).items():
        yield place.tap(f"{prefix}{letter}", *sources, **options)
    yield place.tap(f"{prefix}map", Source(path=path), port="map", **options)


def cross_attention(place: Place, path: str, **options: Any) -> Iterator[Tap]:
    """Queries, map and the text-side keys and values of an attention to text."""
    sources = projections(path, is_cross=True)
    yield place.tap("cross-q", *sources["q"], **options)
    for letter in "kv":
        yield place.tap(f"cross-{letter}", *sources[letter], layout="text", is_listed=False, is_ours=True)
    yield place.tap("cross-map", Source(path=path), port="map", **options)


def feed_forward(block: nn.Module) -> tuple[str, str] | None:
    """Attribute name of a block's feed-forward and the path of its hidden activation inside it."""
    for name in FEED_FORWARD:
        module = getattr(block, name, None)
        if not isinstance(module, nn.Module):
            continue
        net = getattr(module, "net", None)
        if isinstance(net, nn.ModuleList | nn.Sequential):
            return name, f"{name}.net.0"
        for inner in ("act_fn", "act", "activation", "nonlinearity"):
            if isinstance(getattr(module, inner, None), nn.Module):
                return name, f"{name}.{inner}"
    return None


def basic_block(place: Place, block: nn.Module, *, is_ours: bool = False) -> Iterator[Tap]:
    """A block of self-attention, cross-attention and feed-forward, each where present.

    Args:
        place: Place of the block.
        block: The block.
        is_ours: Whether the authors' code has no names for this model at all.
    """
    for attribute, attention in attentions(block).items():
        path = f"{place.path}.{attribute}"
        if attribute in {"attn2", "cross_attn", "cross_attention"} and attends_text(attention):
            # with separate image keys the text is attended last
            call = -1 if isinstance(getattr(attention, "add_k_proj", None), nn.Module) else 0
            for tap in cross_attention(place, path):
                yield replace(tap, call=call if tap.port == "map" else 0, is_ours=tap.is_ours or is_ours)
        else:
            prefix = "self-" if attribute in {"attn1", "attn", "self_attn", "self_attention"} else "self2-"
            yield from self_attention(place, path, prefix, is_ours=is_ours)
    if inner := feed_forward(block):
        yield place.tap("ffn-inner", Source(path=f"{place.path}.{inner[1]}"), is_ours=is_ours)
    yield place.tap("out", Source(path=place.path), is_ours=is_ours)


def attends_text(attention: nn.Module) -> bool:
    """Whether an attention takes keys from another sequence.

    Old and new attention classes differ in this, and some show it only by the width of their keys.
    """
    flag = getattr(attention, "is_cross_attention", None)
    return bool(flag) if flag is not None else True


def joint_block(
    place: Place, block: nn.Module, *, item: int, text_first: bool, is_ours: bool
) -> Iterator[Tap]:
    """A block in which image and text tokens attend to each other, with separate weights.

    Args:
        place: Place of the block.
        block: The block.
        item: Position of the image stream in the block's output.
        text_first: Whether the joint sequence starts with text.
        is_ours: Whether the authors' code has no names for this model.
    """
    found = attentions(block)
    path = f"{place.path}.attn"
    for letter, sources in projections(path, is_cross=False).items():
        yield place.tap(letter, *sources, is_ours=is_ours)
    for kind, keys in (("self-map", "image"), ("cross-map", "text")):
        yield place.tap(
            kind, Source(path=path), port="map", keys=keys, text_first=text_first, is_ours=is_ours
        )
    yield place.tap("attn-out", Source(path=path), is_ours=is_ours)
    if "attn2" in found:  # SD3.5-medium: a second attention of the image to itself, beside the joint one
        yield from self_attention(place, f"{place.path}.attn2", "self2-", is_ours=True)
        yield place.tap("self2-out", Source(path=f"{place.path}.attn2"), is_ours=True)
    if inner := feed_forward(block):
        outer = Source(path=f"{place.path}.{inner[0]}")
        yield place.tap("norm-out", outer, port="input", is_ours=is_ours)
        # stored as "out" by the authors' code: the input of the feed-forward, not the block's output
        yield place.tap("paper-out", outer, port="input", is_listed=False, is_ours=True)
        yield place.tap("ffn-inner", Source(path=f"{place.path}.{inner[1]}"), is_ours=is_ours)
    yield place.tap("out", Source(path=place.path), item=item, is_ours=is_ours)


def single_block(place: Place, block: nn.Module, *, item: int, is_ours: bool) -> Iterator[Tap]:
    """A block of text and image tokens as one sequence, text first, with shared weights.

    Attention and feed-forward run side by side, so the order differs from other blocks: the hidden activation
    comes first where the two have separate projections, and before the maps where they share one.
    """
    path = f"{place.path}.attn"
    attention = block.get_submodule("attn")
    out = place.tap("out", Source(path=place.path), item=item, is_ours=is_ours)
    maps = [
        place.tap(kind, Source(path=path), port="map", keys=keys, is_ours=is_ours)
        for kind, keys in (("self-map", "image"), ("cross-map", "text"))
    ]
    if hasattr(attention, "to_qkv_mlp_proj"):
        width = int(cast("Any", attention).inner_dim)
        for i, letter in enumerate("qkv"):
            source = Source(path=f"{path}.to_qkv_mlp_proj", part=(i, 3), stop=3 * width)
            yield place.tap(letter, source, is_ours=is_ours)
        yield place.tap("ffn-inner", Source(path=f"{path}.mlp_act_fn"), is_ours=True)
        yield place.tap("attn-out", Source(path=f"{path}.to_out", stop=width), port="input", is_ours=is_ours)
        yield from (*maps, out)
        return
    if hasattr(block, "act_mlp"):
        yield place.tap("ffn-inner", Source(path=f"{place.path}.act_mlp"), is_ours=True)
    for letter, sources in projections(path, is_cross=False).items():
        yield place.tap(letter, *sources, is_ours=is_ours)
    yield from maps
    yield place.tap("attn-out", Source(path=path), is_ours=is_ours)
    yield out
