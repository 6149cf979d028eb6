# SPDX-License-Identifier: Apache-2.0
"""Configuration of a segmentation: last block, windows, branches, refinement, rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, get_args

from itaclip.methods import METHODS, merged_fields

Pair = Literal["qq", "kk", "vv", "qk"]
Branch = Literal["identity", "gray", "blur", "vflip", "hflip"]
Positions = Literal["legacy", "size"]
TemplateSet = Literal["imagenet", "photo", "plain"]
Option = str | int | float

PAIRS: tuple[Pair, ...] = get_args(Pair)
BRANCHES: tuple[Branch, ...] = get_args(Branch)
FLIPS: tuple[Branch, ...] = ("vflip", "hflip")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """Attention of the last block of the image tower.

    Attributes:
        strategy: Kind of attention: mixed for sums of maps as the fields below say, value for the value of
            each token alone (MaskCLIP), or another that "itaclip presets" lists.
        options: Options of the strategy, as beta=1.2,tower=./dino; mixed and value have the fields below.
        pairs: Attention maps of the last block that are summed, any of qq, kk, vv and qk; the rows of the
            sum add up to their number.
        mid_layers: Earlier blocks whose attention maps are averaged and mixed in: numbers counted from 1, or
            relative depths in (0, 1) that fit a tower of any depth; empty for none.
        mid_pairs: Attention maps of those blocks that are summed; default is the value of pairs.
        mid_weight: Weight of the average of the middle layers, in [0, 1].
        gain: Factor on the mixed attention map.
        locality: Standard deviation, in patches, of a Gaussian of height 1 around each patch, added to the
            logits of the last block (NACLIP); 0 for none.
        residual: Addition of the block's input to its attention output.
        ffn: Feed-forward half of the block, with its own residual.
    """

    strategy: str = "mixed"
    options: Mapping[str, Option] = field(default_factory=dict[str, Option], hash=False)
    pairs: tuple[Pair, ...] = ("qq", "kk")
    mid_layers: tuple[int | float, ...] = (7, 8, 10)
    mid_pairs: tuple[Pair, ...] | None = None
    mid_weight: float = 0.5
    gain: float = 1.0
    locality: float = 0.0
    residual: bool = True
    ffn: bool = False

    def __post_init__(self) -> None:
        for name in ("pairs", "mid_pairs"):
            pairs = getattr(self, name)
            if pairs is None:
                continue
            if isinstance(pairs, str) or not pairs or any(pair not in PAIRS for pair in pairs):
                raise ValueError(f"{name} must be a tuple of {', '.join(PAIRS)}, got {pairs!r}")
        for layer in self.mid_layers:
            fits = layer >= 1 if _is_whole(layer) else 0 < layer < 1
            if not fits:
                raise ValueError(
                    f"mid_layers must be block numbers from 1 or relative depths in (0, 1), got {layer!r}"
                )
        if not 0 <= self.mid_weight <= 1:
            raise ValueError(f"mid_weight must lie in [0, 1], got {self.mid_weight}")
        for name in ("gain", "locality"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of at least 0, got {value}")

    def resolve_layers(self, num_blocks: int) -> tuple[int, ...]:
        """Return the middle layers of a tower, counted from 1.

        Args:
            num_blocks: Blocks of the tower, the last included.

        Raises:
            ValueError: If a block number does not lie before the last block.
        """
        resolved: list[int] = []
        for layer in self.mid_layers:
            if not _is_whole(layer):
                resolved.append(min(max(1, round(layer * num_blocks)), max(1, num_blocks - 1)))
                continue
            if layer >= num_blocks:
                raise ValueError(
                    f"mid_layers must lie before the last of {num_blocks} blocks, got {int(layer)}; "
                    "relative depths such as 0.58 fit every tower"
                )
            resolved.append(int(layer))
        return tuple(resolved)


def _is_whole(layer: float) -> bool:
    return isinstance(layer, int)


@dataclass(frozen=True, slots=True, kw_only=True)
class ITACLIPConfig:
    """Configuration of :class:`itaclip.ITACLIP`.

    Attributes:
        attention: Attention of the last block of the image tower.
        resize_short: Short side after resizing, in pixels; 0 keeps the size of the image.
        resize_long: Upper limit of the long side after resizing, in pixels.
        crop: Side of the square windows, in pixels; 0 takes the whole image as one window, whose scores are
            enlarged from patches to the original size at once.
        stride: Distance between neighbouring windows, in pixels, at most crop.
        branches: Versions of each window that are encoded: identity, gray and blur (first category), vflip
            and hflip (second category).
        lam: Weight of the first category, in [0, 1]; without effect if one of the categories is empty.
        blur_kernel: Side of the blur kernel, in pixels, odd.
        blur_sigma: Standard deviation of the blur, in pixels.
        alpha: Weight of the auxiliary texts, in [0, 1].
        templates: Prompt templates: imagenet for the 80 of CLIP, photo for one, plain for the name alone.
        logit_scale: Factor on the cosine similarities before the softmax.
        prob_threshold: Probability below which a pixel becomes background, if there is a background class.
        area_threshold: Share of the foreground that a class must exceed to be kept; default is no such rule.
        pamr_steps: Iterations of pixel-adaptive mask refinement (PAMR); 0 for none.
        pamr_dilations: Distances of the neighbours in PAMR, in pixels.
        pamr_whole: PAMR also where crop is 0; the published code leaves it out there.
        closing: 3x3 morphological closing of the label map; depends on the order of the classes.
        positions: Interpolation of position embeddings: legacy as in the published code, size to the exact
            size of the grid.
        batch_size: Windows times branches in one pass of the image tower.
    """

    attention: AttentionConfig = field(default_factory=AttentionConfig)
    resize_short: int = 336
    resize_long: int = 2048
    crop: int = 224
    stride: int = 112
    branches: tuple[Branch, ...] = BRANCHES
    lam: float = 0.75
    blur_kernel: int = 11
    blur_sigma: float = 5.0
    alpha: float = 0.2
    templates: TemplateSet = "imagenet"
    logit_scale: float = 40.0
    prob_threshold: float = 0.0
    area_threshold: float | None = None
    pamr_steps: int = 10
    pamr_dilations: tuple[int, ...] = (8, 16)
    pamr_whole: bool = False
    closing: bool = True
    positions: Positions = "legacy"
    batch_size: int = 20

    def __post_init__(self) -> None:
        for name, kind in (("positions", Positions), ("templates", TemplateSet)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}")
        for name, least in (
            ("resize_short", 0),
            ("resize_long", 1),
            ("crop", 0),
            ("stride", 1),
            ("blur_kernel", 1),
            ("pamr_steps", 0),
            ("batch_size", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.crop and self.stride > self.crop:
            raise ValueError(
                "stride must be at most crop, or pixels are missed, "
                f"got stride={self.stride}, crop={self.crop}"
            )
        self._check_branches()
        for name in ("lam", "alpha", "prob_threshold", "area_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        for name in ("logit_scale", "blur_sigma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")
        if not self.pamr_dilations or min(self.pamr_dilations) < 1:
            raise ValueError(f"pamr_dilations must be positive distances, got {self.pamr_dilations}")

    def _check_branches(self) -> None:
        if self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel must be odd, got {self.blur_kernel}")
        unknown = set(self.branches) - set(BRANCHES)
        if isinstance(self.branches, str) or not self.branches or unknown:
            raise ValueError(f"branches must be a tuple of {', '.join(BRANCHES)}, got {self.branches!r}")
        if len(set(self.branches)) != len(self.branches):
            raise ValueError(f"branches must not repeat, got {self.branches!r}")

    @classmethod
    def preset(cls, name: str, *, dataset: str | None = None, **changes: object) -> ITACLIPConfig:
        """Return the configuration of a method, for any image or as published for a data set.

        Args:
            name: Method: ``"itaclip"``, ``"sclip"``, ``"naclip"``, ``"clearclip"``, ``"resclip"``,
                ``"scclip"``, ``"maskclip"``, ``"gem"``, ``"proxyclip"``, ``"corrclip"``, ``"trident"``,
                ``"vanilla"`` (plain CLIP), ``"fast"`` (ITACLIP with two versions of every window) or
                ``"tiny-shapes"`` (for the shipped model).
            dataset: Data set whose settings by the method's authors are taken: ``"voc21"``, ``"context60"``,
                ``"coco-object"``, ``"coco-stuff"``, ``"cityscapes"``, ``"voc20"``, ``"context59"`` or
                ``"ade20k"``; ``None`` for any image.
            **changes: Fields to replace, such as ``stride=56``.

        Raises:
            ValueError: If the method, the data set or a field is unknown, or a change is invalid.

        Source: :data:`itaclip.methods.METHODS` names the publication of each.
        """
        return cls.from_dict({**merged_fields(name, dataset), **changes})

    @classmethod
    def presets(cls) -> tuple[str, ...]:
        """Return the names that :meth:`preset` knows."""
        return tuple(METHODS)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> ITACLIPConfig:
        """Rebuild a configuration from :meth:`to_dict`.

        Raises:
            ValueError: If a key is unknown or a value invalid.
        """
        plain = _plain(cls, values)
        attention = plain.get("attention", {})
        if isinstance(attention, Mapping):
            known = _plain(AttentionConfig, attention)
            plain["attention"] = AttentionConfig(**known)  # pyright: ignore[reportArgumentType] - checked there
        return cls(**plain)  # pyright: ignore[reportArgumentType] - checked in __post_init__

    def to_dict(self) -> dict[str, object]:
        """Return a dictionary of plain JSON values."""
        plain = {key: _listed(value) for key, value in asdict(self).items()}
        plain["attention"] = {key: _listed(value) for key, value in asdict(self.attention).items()}
        return plain


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _plain(kind: type[ITACLIPConfig | AttentionConfig], values: Mapping[str, object]) -> dict[str, object]:
    unknown = values.keys() - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """Segmentation of a video.

    Attributes:
        smoothing: Weight of the previous frames in the probabilities of a frame, in [0, 1); 0 for none.
        every: Segment every N-th frame; the frames between keep its labels.
        max_side: Upper limit of the long side of the frames that are segmented and written, in pixels.
        max_frames: Number of frames to read; default is all.
        opacity: Opacity of the colours, in [0, 1].
        legend: Legend of the classes below each frame.

    Raises:
        ValueError: If a number leaves its range.
    """

    smoothing: float = 0.6
    every: int = 1
    max_side: int = 1280
    max_frames: int | None = None
    opacity: float = 0.55
    legend: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must lie in [0, 1), got {self.smoothing}")
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"opacity must lie in [0, 1], got {self.opacity}")
        if self.every < 1 or (self.max_frames is not None and self.max_frames < 1) or self.max_side < 16:
            raise ValueError(
                "every and max_frames must be positive and max_side at least 16, "
                f"got every={self.every}, max_frames={self.max_frames}, max_side={self.max_side}"
            )
