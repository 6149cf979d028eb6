# SPDX-License-Identifier: Apache-2.0
"""What a SemanIR network is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import gcd
from typing import Literal, get_args

Architecture = Literal["columnar", "unet"]
Similarity = Literal["dot", "cosine", "l2"]
Shift = Literal["stage", "layer", "none"]
Logits = Literal["cosine", "scaled"]
PositionBias = Literal["mlp", "vectors", "none"]
Norm = Literal["post", "pre"]
Resampling = Literal["conv", "linear"]
Upsampler = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"]

# mean colour of DIV2K, the field's convention for three channels
RGB_MEAN = (0.4488, 0.4371, 0.4040)

_CHOICES = {
    "architecture": get_args(Architecture),
    "similarity": get_args(Similarity),
    "shift": get_args(Shift),
    "logits": get_args(Logits),
    "position_bias": get_args(PositionBias),
    "norm": get_args(Norm),
    "resampling": get_args(Resampling),
    "upsampler": get_args(Upsampler),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanIRConfig:
    """Hyper-parameters of :class:`semanir.SemanIR`.

    Attributes:
        architecture: ``"columnar"`` keeps one resolution (the paper's Archi-V1, for super-resolution);
            ``"unet"`` goes down and up again (Archi-V2, for everything else).
        in_channels: Channels of the input image.
        out_channels: Channels of the output. The input is added to the output when both agree and
            the architecture is ``"unet"``.
        embed_dims: Channels of each resolution level: one number for ``"columnar"``.
        num_heads: Attention heads of each level; must divide the level's channels.
        depths: Layers of each stage. ``"columnar"``: any number of stages. ``"unet"`` with ``n`` levels:
            ``n - 1`` stages down, one at the bottom, ``n - 1`` up and one final stage, ``2 n`` in all.
        conv_blocks: Residual blocks of two 3x3 convolutions in front of each stage's dictionary;
            ours, not the paper's. One number per stage, or empty for none.
        window_size: Side of the attention windows in tokens, at every level.
        k: Keys per token, clamped to the tokens of a window.
        mlp_ratio: Hidden width of a layer's MLP over its channels.
        similarity: How the dictionary compares tokens.
        force_self: Whether every token lists itself.
        shift: ``"stage"``: every odd stage works on windows moved by half a window; ``"layer"``: every odd
            layer does, with two dictionaries per stage; ``"none"``.
        logits: ``"cosine"`` with a learnt scale per head, or ``"scaled"`` dot products.
        position_bias: ``"mlp"``: continuous relative bias, for any window size; ``"vectors"``: learnt vectors
            on queries and keys, which leave the attention mask free of gradients and so keep torch's fused
            kernel in training; ``"none"``.
        norm: Layer norm on the ``"post"`` or ``"pre"`` side of each residual branch.
        patch_unshuffle: Pixels of a token's side: 2 folds 2x2 pixels into channels first.
        resampling: Between levels of a U-net: 3x3 ``"conv"`` (strided, or before a pixel shuffle), or a
            ``"linear"`` 1x1 map after a pixel (un)shuffle.
        upscale: Output over input side. A ``"unet"`` first enlarges its input bicubically.
        degradation_dim: Numbers by which a ``"unet"`` tells degradations apart: predicted from the input,
            they scale and shift the features of every stage, so that one network can undo several. 0 for
            none; ours, not the paper's.
        upsampler: Reconstruction head of ``"columnar"``.
        mean: Subtracted from the input and added to the output, one number per channel; empty for zero.
    """

    architecture: Architecture
    embed_dims: tuple[int, ...]
    num_heads: tuple[int, ...]
    depths: tuple[int, ...]
    in_channels: int = 3
    out_channels: int = 3
    conv_blocks: tuple[int, ...] = ()
    window_size: int = 32
    k: int = 512
    mlp_ratio: float = 2.0
    similarity: Similarity = "dot"
    force_self: bool = True
    shift: Shift = "stage"
    logits: Logits = "cosine"
    position_bias: PositionBias = "mlp"
    norm: Norm = "post"
    patch_unshuffle: int = 1
    resampling: Resampling = "conv"
    upscale: int = 1
    degradation_dim: int = 0
    upsampler: Upsampler = "pixelshuffle"
    mean: tuple[float, ...] = RGB_MEAN

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {value!r}")
        for name in ("in_channels", "out_channels", "window_size", "k", "patch_unshuffle", "upscale"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.degradation_dim < 0:
            raise ValueError(f"degradation_dim must not be negative, got {self.degradation_dim}")
        self._check_levels()
        if self.conv_blocks and len(self.conv_blocks) != len(self.depths):
            raise ValueError(f"conv_blocks must match depths, got {self.conv_blocks=} and {self.depths=}")
        if self.mean and len(self.mean) != self.in_channels:
            raise ValueError(f"mean needs one number per channel, got {self.mean=} and {self.in_channels=}")
        if self.mean and self.out_channels != self.in_channels:
            raise ValueError("mean must be empty when in_channels and out_channels differ")

    def _check_levels(self) -> None:
        levels = len(self.embed_dims)
        if levels != len(self.num_heads) or levels == 0:
            raise ValueError(
                f"embed_dims and num_heads must match, got {self.embed_dims=} and {self.num_heads=}"
            )
        for dim, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if heads < 1 or dim % heads:
                raise ValueError(f"num_heads must divide embed_dims, got {dim=} and {heads=}")
        if self.architecture == "columnar" and levels != 1:
            raise ValueError(f"a columnar network has one level, got {self.embed_dims=}")
        if self.architecture == "unet" and len(self.depths) != 2 * levels:
            raise ValueError(
                f"a unet of {levels} levels has {2 * levels} stages, got {self.depths=} of {len(self.depths)}"
            )
        if self.architecture == "columnar" and self.degradation_dim:
            raise ValueError(f"degradation_dim belongs to the unet, got {self.degradation_dim=}")
        if self.architecture == "columnar" and self.patch_unshuffle != 1:
            raise ValueError(f"patch_unshuffle belongs to the unet, got {self.patch_unshuffle=}")
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"every stage needs a layer, got {self.depths=}")

    @property
    def size_multiple(self) -> int:
        """Pixels to whose multiple both sides of the input are padded inside the network."""
        if self.architecture == "columnar":
            return self.window_size
        inner = self.window_size * 2 ** (len(self.embed_dims) - 1) * self.patch_unshuffle
        return inner // gcd(inner, self.upscale)

    @property
    def values_per_pixel(self) -> float:
        """Numbers kept at once for each pixel of the input: thirty maps of the first level, the masks."""
        tokens = self.window_size**2
        masks = 2 * tokens * (1 + (self.num_heads[0] if self.position_bias == "mlp" else 0))
        body = (30 * self.embed_dims[0] + masks) / self.patch_unshuffle**2
        if self.architecture == "unet":  # works on the enlarged image
            return body * self.upscale**2
        return body + (256 * self.upscale**2 if self.upscale > 1 else 0)

    @classmethod
    def preset(cls, name: str, **changes: object) -> SemanIRConfig:
        """Return a named configuration.

        Args:
            name: ``"sr-small"``, ``"sr-base"`` (paper, Archi-V1), ``"small"``, ``"base"`` (Archi-V2) or
                ``"tiny"`` (the shipped denoiser).
            **changes: Fields to replace, such as ``upscale=4``.

        Returns:
            The configuration.

        Raises:
            ValueError: If the name is unknown or a change is invalid.

        Source: SemanIR, arXiv 2405.20008. The columnar layouts reproduce the six published parameter counts;
            ``base`` comes within 0.2 % of the published 25.82 M, its layout being our choice.
        """
        if name not in _PRESETS:
            raise ValueError(f"preset must be one of {', '.join(_PRESETS)}, got {name!r}")
        unknown = changes.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"SemanIRConfig has no field {', '.join(sorted(unknown))}")
        return replace(_PRESETS[name], **changes)  # pyright: ignore[reportArgumentType] - checked in __post_init__

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> SemanIRConfig:
        """Rebuild a configuration from :meth:`to_dict`.

        Raises:
            ValueError: If a key is unknown or a value invalid.
        """
        unknown = values.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"SemanIRConfig has no field {', '.join(sorted(unknown))}")
        plain = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)  # pyright: ignore[reportArgumentType] - checked in __post_init__

    def to_dict(self) -> dict[str, object]:
        """Return a dictionary of plain JSON values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


_SR = SemanIRConfig(
    architecture="columnar", embed_dims=(180,), num_heads=(6,), depths=(6,) * 6, upscale=2, window_size=32
)
_UNET = SemanIRConfig(
    architecture="unet", embed_dims=(128, 256, 512), num_heads=(4, 8, 16), depths=(4,) * 6, window_size=32
)
_PRESETS = {
    "sr-small": _SR,
    "sr-base": replace(_SR, depths=(8,) * 8),
    "small": replace(_UNET, embed_dims=(64, 128, 256), num_heads=(2, 4, 8)),
    "base": _UNET,
    # shaped by what trains well in little time on a CPU: see docs/semanir/method.md
    "tiny": replace(
        _UNET,
        embed_dims=(64, 128),
        num_heads=(2, 4),
        depths=(2, 2, 2, 2),
        conv_blocks=(1, 0, 1, 1),
        window_size=8,
        k=32,
        logits="scaled",
        position_bias="vectors",
        norm="pre",
        patch_unshuffle=2,
        resampling="linear",
    ),
}
