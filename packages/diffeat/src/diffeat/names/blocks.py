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
ATTENTIONS = (
    "attn",
    "attention",
    "attn1",
    "attn2",
    "self_attn",
    "cross_attn",
    "self_attention",
    "cross_attention",
)
# the projection after a gated hidden activation that is no module's output, and a module beside it
_AFTER_GATE = (("conv_point", "conv_depth"), ("linear_2", "linear_3"), ("w2", "w3"))


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


def has_map(attention: nn.Module) -> bool:
    """Whether an attention computes a map; linear attention, as in Sana, has none."""
    return "Linear" not in type(getattr(attention, "processor", None)).__name__


def cross_attention(place: Place, path: str, **options: Any) -> Iterator[Tap]:
    """Queries, map and the text-side keys and values of an attention to text."""
    sources = projections(path, is_cross=True)
    yield place.tap("cross-q", *sources["q"], **options)
    for letter in "kv":
        yield place.tap(f"cross-{letter}", *sources[letter], layout="text", is_listed=False, is_ours=True)
    yield place.tap("cross-map", Source(path=path), port="map", **options)


def feed_forward(block: nn.Module) -> str | None:
    """Attribute name of a block's feed-forward."""
    return next((name for name in FEED_FORWARD if isinstance(getattr(block, name, None), nn.Module)), None)


def ffn_inner(place: Place, block: nn.Module, *, is_ours: bool) -> Iterator[Tap]:
    """The hidden activation of a block's feed-forward, after the gate."""
    name = feed_forward(block)
    if name is None:
        return
    module, path = block.get_submodule(name), f"{place.path}.{name}"
    if isinstance(getattr(module, "net", None), nn.ModuleList | nn.Sequential):
        yield place.tap("ffn-inner", Source(path=f"{path}.net.0"), is_ours=is_ours)
        return
    for last, beside in _AFTER_GATE:
        if hasattr(module, last) and hasattr(module, beside):
            layout = "image" if isinstance(getattr(module, last), nn.Conv2d) else "tokens"
            source = Source(path=f"{path}.{last}")
            yield place.tap("ffn-inner", source, port="input", layout=layout, is_ours=is_ours)
            return
    for inner in ("act_fn", "act", "activation", "nonlinearity"):
        if isinstance(getattr(module, inner, None), nn.Module):
            yield place.tap("ffn-inner", Source(path=f"{path}.{inner}"), is_ours=is_ours)
            return


def basic_block(
    place: Place, block: nn.Module, *, item: int | None = 0, is_ours: bool = False
) -> Iterator[Tap]:
    """A block of self-attention, cross-attention and feed-forward, each where present.

    Args:
        place: Place of the block.
        block: The block.
        item: Position of the image stream in the block's output.
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
            prefix = "self2-" if attribute in {"attn2", "cross_attn", "cross_attention"} else "self-"
            taps = self_attention(place, path, prefix, is_ours=is_ours)
            yield from (tap for tap in taps if tap.port != "map" or has_map(attention))
    yield from ffn_inner(place, block, is_ours=is_ours)
    yield place.tap("out", Source(path=place.path), item=item, is_ours=is_ours)


def attends_text(attention: nn.Module) -> bool:
    """Whether an attention takes keys from another sequence.

    Old and new attention classes differ in this, and some show it only by the width of their keys.
    """
    flag = getattr(attention, "is_cross_attention", None)
    return bool(flag) if flag is not None else True


def joint_block(place: Place, block: nn.Module, *, item: int | None, is_ours: bool) -> Iterator[Tap]:
    """A block in which image and text tokens attend to each other, with separate weights.

    Args:
        place: Place of the block.
        block: The block.
        item: Position of the image stream in the block's output.
        is_ours: Whether the authors' code has no names for this model.
    """
    found = attentions(block)
    path = f"{place.path}.{next(iter(found))}"
    for letter, sources in projections(path, is_cross=False).items():
        yield place.tap(letter, *sources, is_ours=is_ours)
    for kind, keys in (("self-map", "image"), ("cross-map", "text")):
        yield place.tap(kind, Source(path=path), port="map", keys=keys, is_ours=is_ours)
    # an attention returns the streams in their joint order or the image first
    yield place.tap("attn-out", Source(path=path), item=None if item is None else 0, is_ours=is_ours)
    if "attn2" in found:  # SD3.5-medium: a second attention of the image to itself, beside the joint one
        yield from self_attention(place, f"{place.path}.attn2", "self2-", is_ours=True)
        yield place.tap("self2-out", Source(path=f"{place.path}.attn2"), is_ours=True)
    if name := feed_forward(block):
        outer = Source(path=f"{place.path}.{name}")
        yield place.tap("norm-out", outer, port="input", is_ours=is_ours)
        # stored as "out" by the authors' code: the input of the feed-forward, not the block's output
        yield place.tap("paper-out", outer, port="input", is_listed=False, is_ours=True)
        yield from ffn_inner(place, block, is_ours=is_ours)
    yield place.tap("out", Source(path=place.path), item=item, is_ours=is_ours)


def shared_block(
    place: Place, block: nn.Module, *, item: int | None, has_text: bool, is_ours: bool
) -> Iterator[Tap]:
    """A block of text and image tokens as one sequence, attention before feed-forward, with shared weights.

    Args:
        place: Place of the block.
        block: The block.
        item: Position of the image stream in the block's output.
        has_text: Whether the sequence has text tokens; refiners of the image have none.
        is_ours: Whether the authors' code has no names for this model.
    """
    path = f"{place.path}.{next(iter(attentions(block)))}"
    for letter, sources in projections(path, is_cross=False).items():
        yield place.tap(letter, *sources, is_ours=is_ours)
    yield place.tap("self-map", Source(path=path), port="map", keys="image", is_ours=is_ours)
    if has_text:
        yield place.tap("cross-map", Source(path=path), port="map", keys="text", is_ours=is_ours)
    yield place.tap("attn-out", Source(path=path), item=item, is_ours=is_ours)
    yield from ffn_inner(place, block, is_ours=is_ours)
    yield place.tap("out", Source(path=place.path), item=item, is_ours=is_ours)


def single_block(place: Place, block: nn.Module, *, item: int | None, is_ours: bool) -> Iterator[Tap]:
    """A block of text and image tokens as one sequence with shared weights, as in FLUX.

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
    yield place.tap("attn-out", Source(path=path), item=None if item is None else 0, is_ours=is_ours)
    yield out
