# SPDX-License-Identifier: Apache-2.0
"""The algorithm step by step, one window and one branch after the other: slow, and the measure of the rest.

Works on open_clip's own vision transformer. It shares the formulas of :mod:`itaclip.functional` and the
resizing of the image with the engine, and nothing of the batching, fusing, merging or refining.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from itaclip.config import ITACLIPConfig
from itaclip.functional import (
    gaussian_bias,
    luma_gray,
    mix_maps,
    resize_positions,
    self_self_map,
    share_foreground,
)


def encode_tokens(visual: Any, image: Tensor, config: ITACLIPConfig) -> Tensor:
    """Return every token of one image in text space, by explicit attention maps.

    Args:
        visual: open_clip's ``VisionTransformer``.
        image: ``(1, 3, H, W)``, normalised.
        config: The last block and the position mode.

    Returns:
        ``(1, 1 + patches, D)``.
    """
    attention = config.attention
    patches = visual.conv1(image)
    grid = patches.shape[-2:]
    tokens = patches.flatten(2).transpose(1, 2)  # (1, patches, C)
    positions = resize_positions(
        visual.positional_embedding, visual.grid_size, tuple(grid), num_prefix=1, mode=config.positions
    )
    x = torch.cat([visual.class_embedding.expand(1, 1, -1), tokens], dim=1) + positions
    x = visual.ln_pre(x)
    blocks = visual.transformer.resblocks
    wanted = () if attention.value_only else attention.resolve_layers(len(blocks))
    mids: dict[int, Tensor] = {}
    for number, block in enumerate(blocks[:-1], start=1):
        if number in wanted:
            mids[number] = _map(block, x, attention.mid_pairs or attention.pairs)
        x = block(x)
    block = blocks[-1]
    v = _heads(block, x)[2]
    if attention.value_only:
        y = attention.gain * v
    else:
        bias = _bias(grid, attention.locality) if attention.locality else None
        last = _map(block, x, attention.pairs, bias)
        y = attention.gain * mix_maps(last, [mids[n] for n in wanted], attention.mid_weight) @ v
    branch = block.ls_1(block.attn.out_proj(y.transpose(1, 2).flatten(2)))
    x = x + branch if attention.residual else branch
    if attention.ffn:
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return visual.ln_post(x) @ visual.proj


def _heads(block: Any, x: Tensor) -> list[Tensor]:
    attn = block.attn
    joint = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    return [part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in joint.chunk(3, dim=-1)]


def _map(block: Any, x: Tensor, pairs: Sequence[str], bias: Tensor | None = None) -> Tensor:
    q, k, v = _heads(block, x)
    return self_self_map(q, k, v, pairs=pairs, scale=q.shape[-1] ** -0.5, bias=bias)


def _bias(grid: Sequence[int], std: float) -> Tensor:
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in grid))
    places = torch.cat([places.new_full((1, 2), torch.nan), places])
    return gaussian_bias(places, places, std)


def window_scores(
    visual: Any,
    window: Tensor,
    text: Tensor,
    config: ITACLIPConfig,
    shared: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the scores of one window at its own size, ``(names, height, width)``.

    Args:
        visual: open_clip's ``VisionTransformer``.
        window: ``(3, height, width)``, normalised.
        text: ``(names, D)``.
        config: The branches.
        shared: What the prior makes of scores in patches; ``None`` without one.
    """
    size = window.shape[-2:]
    grid = tuple(side // patch for side, patch in zip(size, visual.patch_size, strict=True))

    def features(version: Tensor) -> Tensor:
        tokens = F.normalize(encode_tokens(visual, version[None], config), dim=-1)
        return tokens[0, 1:]  # (patches, D)

    def enlarged(coarse: Tensor) -> Tensor:
        return F.interpolate(coarse[None], size=size, mode="bilinear", align_corners=False)[0]

    def scores(tokens: Tensor) -> Tensor:
        coarse = (tokens @ text.T).T.unflatten(-1, grid)  # (names, height, width) in patches
        return enlarged(coarse) if shared is None else coarse

    blurred = [min(config.blur_kernel, 2 * side - 1) for side in reversed(size)]
    makers = {
        "identity": lambda: window,
        "gray": lambda: luma_gray(window),
        "blur": lambda: tv.gaussian_blur_image(window, kernel_size=blurred, sigma=[config.blur_sigma] * 2),
    }
    first = [features(make()) for name, make in makers.items() if name in config.branches]
    axes = {"vflip": -2, "hflip": -1}
    second = [
        scores(features(window.flip(axis))).flip(axis)
        for name, axis in axes.items()
        if name in config.branches
    ]
    if not first:
        mixed = torch.stack(second).mean(dim=0)
    else:
        mixed = scores(torch.stack(first).mean(dim=0))
        if second:
            mixed = config.lam * mixed + (1 - config.lam) * torch.stack(second).mean(dim=0)
    return mixed if shared is None else enlarged(shared(mixed))


def whole_windows(visual: Any, view: Tensor, text: Tensor) -> list[tuple[list[float], Tensor]]:
    """Return what the untouched tower says of every window of the prior.

    Args:
        visual: open_clip's ``VisionTransformer``.
        view: The image at a size of the prior, normalised, ``(3, h, w)``.
        text: ``(names, D)``.

    Returns:
        Of each window its top, bottom, left and right as shares of the image, and its scores ``(names,)``.
    """
    size = tuple(n * p for n, p in zip(visual.grid_size, visual.patch_size, strict=True))
    height, width = view.shape[-2:]
    found: list[tuple[list[float], Tensor]] = []
    for top, bottom in _spans(height, max(size), round(max(size) / 2)):
        for left, right in _spans(width, max(size), round(max(size) / 2)):
            window = view[None, :, top:bottom, left:right]
            window = F.interpolate(window, size=size, mode="bilinear", align_corners=False)
            box = [top / height, bottom / height, left / width, right / width]
            found.append((box, text @ F.normalize(visual(window), dim=-1)[0]))
    return found


def prior_at(views: Sequence[list[tuple[list[float], Tensor]]], down: float, across: float) -> Tensor:
    """Return the prior at one place, ``(names,)``.

    Args:
        views: From :func:`whole_windows`, one per size.
        down: The place, as a share of the height.
        across: Likewise of the width.
    """
    means: list[Tensor] = []
    for windows in views:
        total, weights = torch.zeros_like(windows[0][1]), 0.0
        for (top, bottom, left, right), scores in windows:
            near = max(0.0, 1 - abs(down - (top + bottom) / 2) / ((bottom - top) / 2))
            near *= max(0.0, 1 - abs(across - (left + right) / 2) / ((right - left) / 2))
            total += near**4 * scores
            weights += near**4
        means.append(total / weights)
    return torch.stack(means).mean(dim=0)


def _spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    ends = [min(n * stride + crop, length) for n in range(max(length - crop + stride - 1, 0) // stride + 1)]
    return [(max(end - crop, 0), end) for end in ends]


def image_scores(
    visual: Any,
    image: Tensor,
    size: tuple[int, int],
    text: Tensor,
    config: ITACLIPConfig,
    *,
    foreground: Tensor,
    views: Sequence[Tensor] = (),
) -> Tensor:
    """Return the averaged scores of all windows at the original size, ``(names, *size)``.

    Args:
        visual: open_clip's ``VisionTransformer``.
        image: Resized and normalised, ``(3, h, w)``.
        size: Original height and width.
        text: ``(names, D)``.
        config: Windows and branches.
        foreground: ``(names,)``, bool: the names that the prior is for.
        views: The image at the sizes of the prior, normalised; without a prior none.
    """
    height, width = image.shape[-2:]
    whole = [whole_windows(visual, view, text) for view in views]

    def shared(coarse: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
        rows, columns = coarse.shape[-2:]
        prior = torch.empty_like(coarse)
        for i, j in product(range(rows), range(columns)):
            down = (top + (i + 0.5) / rows * (bottom - top)) / height
            across = (left + (j + 0.5) / columns * (right - left)) / width
            prior[:, i, j] = prior_at(whole, down, across)
        return share_foreground(
            coarse, prior, foreground, weight=config.prior_weight, logit_scale=config.logit_scale
        )

    crop, stride = (config.crop, config.stride) if config.crop else (max(height, width), 1)
    total = image.new_zeros((len(text), height, width))
    visits = image.new_zeros((height, width))
    for top, bottom in _spans(height, crop, stride):
        for left, right in _spans(width, crop, stride):
            box = partial(shared, top=top, bottom=bottom, left=left, right=right) if views else None
            scores = window_scores(visual, image[:, top:bottom, left:right], text, config, box)
            total += F.pad(scores, (left, width - right, top, height - bottom))
            visits[top:bottom, left:right] += 1
    return F.interpolate((total / visits)[None], size=size, mode="bilinear", align_corners=False)[0]


def refine(image: Tensor, masks: Tensor, steps: int, dilations: Sequence[int]) -> Tensor:
    """Refine masks with all neighbours of all maps at once.

    Args:
        image: ``(3, H, W)``.
        masks: ``(names, H, W)``.
        steps: Iterations.
        dilations: Distances of the neighbours.
    """
    around, centre = _neighbours(image, dilations), image[:, None]
    samples = torch.cat([around, centre.expand(-1, len(dilations), -1, -1)], dim=1)
    std = samples.std(dim=1, keepdim=True)
    logits = -(around - centre).abs() / (1e-8 + 0.1 * std)  # (3, neighbours, H, W)
    weights = logits.mean(dim=0).softmax(dim=0)
    for _ in range(steps):
        masks = (_neighbours(masks, dilations) * weights).sum(dim=1)
    return masks


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Tensor:
    """Return ``(maps, 8 * dilations, H, W)``."""
    height, width = maps.shape[-2:]
    found: list[Tensor] = []
    for distance in dilations:
        padded = F.pad(maps[None], (distance,) * 4, mode="replicate")[0]
        for y in (0, distance, 2 * distance):
            for x in (0, distance, 2 * distance):
                if (y, x) != (distance, distance):
                    found.append(padded[:, y : y + height, x : x + width])
    return torch.stack(found, dim=1)


def class_probabilities(scores: Tensor, owner: Tensor, logit_scale: float, *, columns: int = 0) -> Tensor:
    """Return the probability of each class, by one-hot masks of its names.

    Args:
        scores: ``(names, H, W)``.
        owner: ``(names,)``, the class of each name.
        logit_scale: Factor before the softmax.
        columns: Columns that are worked on together, to save memory; 0 for all.

    Returns:
        ``(classes, H, W)``.
    """
    probabilities = (scores * logit_scale).softmax(dim=0)
    one_hot = F.one_hot(owner).T.to(scores.dtype)[:, :, None, None]  # (classes, names, 1, 1)
    parts = probabilities.split(columns or probabilities.shape[-1], dim=-1)
    return torch.cat([(part[None] * one_hot).amax(dim=1) for part in parts], dim=-1)


def labels(probabilities: Tensor, config: ITACLIPConfig, *, background: bool) -> Tensor:
    """Return the labels after the area, probability and closing rules, ``(H, W)``.

    Args:
        probabilities: ``(classes, H, W)``.
        config: The rules.
        background: Whether class 0 is the background.
    """
    if config.area_thd is not None:
        chosen = F.one_hot(probabilities.argmax(dim=0), len(probabilities))
        areas = chosen[..., int(background) :].sum(dim=(0, 1))
        keep = areas > config.area_thd * areas.sum()
        probabilities = probabilities.clone()
        probabilities[int(background) :] *= keep[:, None, None]
    best, chosen = probabilities.max(dim=0)
    if background:
        chosen[best < config.prob_thd] = 0
    if not config.closing:
        return chosen
    padded = F.pad(chosen, (1,) * 4, value=-1)
    grown = padded.unfold(0, 3, 1).unfold(1, 3, 1).amax(dim=(-2, -1))
    padded = F.pad(grown, (1,) * 4, value=len(probabilities))
    return padded.unfold(0, 3, 1).unfold(1, 3, 1).amin(dim=(-2, -1))


@torch.inference_mode()
def segment(
    clip_model: nn.Module,
    image: Tensor,
    size: tuple[int, int],
    text: Tensor,
    owner: Sequence[int],
    config: ITACLIPConfig,
    *,
    background: bool,
    columns: int = 0,
    views: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Segment one image.

    Args:
        clip_model: open_clip model with its own vision transformer, fp32.
        image: Resized and normalised, ``(3, h, w)``.
        size: Original height and width.
        text: ``(names, D)``.
        owner: Class of each name.
        config: All settings but ``batch_size`` and ``stitched``.
        background: Whether class 0 is the background.
        columns: As in :func:`class_probabilities`.
        views: As in :func:`image_scores`.

    Returns:
        Labels ``(H, W)`` and the probabilities of the classes ``(classes, H, W)``.
    """
    foreground = torch.tensor(owner) >= int(background)
    scores = image_scores(clip_model.visual, image, size, text, config, foreground=foreground, views=views)
    if config.pamr_steps:
        full = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        scores = refine(full, scores, config.pamr_steps, config.pamr_dilations)
    probabilities = class_probabilities(scores, torch.tensor(owner), config.logit_scale, columns=columns)
    return labels(probabilities, config, background=background), probabilities
