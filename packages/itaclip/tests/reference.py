# SPDX-License-Identifier: Apache-2.0
"""The algorithm step by step, one window and one version after the other: slow, the measure of the engine.

Written from the formulas of the papers (ITACLIP arXiv 2411.12044 with its published code, PAMR arXiv
2005.08104, NACLIP arXiv 2404.08181) on open_clip's own vision transformer. It imports nothing of itaclip:
configurations come as the plain dictionaries that are stored with results. It computes in the dtype of the
model: in fp64 it is what the engine is held against, in fp32 what its speed is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Config = Mapping[str, Any]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ``(C, h, w)`` bilinearly, without antialiasing."""
    return F.interpolate(maps[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def prepare(pixels: Tensor, patch: int, config: Config) -> Tensor:
    """Resize and normalise an image ``(3, H, W)`` in [0, 1]."""
    height, width = pixels.shape[-2:]
    short = config["resize_short"] or min(height, width)
    factor = min(Fraction(config["resize_long"], max(height, width)), Fraction(short, min(height, width)))
    size = [max(patch, int(side * factor + Fraction(1, 2))) for side in (height, width)]
    mean, std = (pixels.new_tensor(each).view(3, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
    return (resize(pixels, size) - mean) / std


def positions(visual: Any, grid: Sequence[int], mode: str) -> Tensor:
    """Fit the position embeddings to a grid: by a factor with 0.1 patches too many (legacy), or by size."""
    table, native = visual.positional_embedding, visual.grid_size
    fits = grid[0] * grid[1] == native[0] * native[1] if mode == "legacy" else tuple(grid) == tuple(native)
    if fits:
        return table
    image = table[1:].T.reshape(1, -1, *native)
    if mode == "legacy":
        factors = tuple((n + 0.1) / side for n, side in zip(grid, native, strict=True))
        image = F.interpolate(image, scale_factor=factors, mode="bicubic", align_corners=False)
    else:
        image = F.interpolate(image, size=tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:1], image[0].flatten(1).T])


def heads(block: Any, x: Tensor) -> dict[str, Tensor]:
    """Return queries, keys and values of a block, ``(heads, N, head_dim)`` each."""
    attn, normed = block.attn, block.ln_1(x)[0]
    joint = normed @ attn.in_proj_weight.T + attn.in_proj_bias  # (N, 3 * C)
    parts = joint.reshape(len(joint), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    return dict(zip("qkv", parts, strict=True))


def attention_map(block: Any, x: Tensor, pairs: Sequence[str], bias: Tensor | float = 0.0) -> Tensor:
    """Return the sum of the softmax maps of some pairs, ``(heads, N, N)``; rows sum to their number."""
    qkv = heads(block, x)
    scale = qkv["q"].shape[-1] ** -0.5
    maps = [(qkv[left] @ qkv[right].mT * scale + bias).softmax(dim=-1) for left, right in pairs]
    return torch.stack(maps).sum(dim=0)


def locality_bias(grid: Sequence[int], std: float) -> Tensor:
    """Return a Gaussian of the distance between patches; 0 to and from the class token."""
    height, width = grid
    bias = torch.zeros(1 + height * width, 1 + height * width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            down = (torch.arange(height) - row).square()[:, None]
            across = (torch.arange(width) - column).square()[None]
            bias[1 + row * width + column, 1:] = torch.exp(-(down + across).double() / (2 * std**2)).flatten()
    return bias


def encode_tokens(visual: Any, image: Tensor, config: Config) -> Tensor:
    """Return every token of one image ``(3, H, W)`` in text space, ``(1 + patches, D)``."""
    attention = config["attention"]
    patches = visual.conv1(image[None])
    grid = patches.shape[-2:]
    x = torch.cat([visual.class_embedding.expand(1, 1, -1), patches.flatten(2).mT], dim=1)
    x = visual.ln_pre(x + positions(visual, grid, config["positions"]))
    blocks = visual.transformer.resblocks
    count = len(blocks)
    layers = [
        n if isinstance(n, int) else min(max(1, round(n * count)), count - 1) for n in attention["mid_layers"]
    ]
    mids: dict[int, Tensor] = {}
    for number, block in enumerate(blocks[:-1], start=1):
        mids[number] = attention_map(block, x, attention["mid_pairs"] or attention["pairs"])
        x = block(x)
    block = blocks[-1]
    y = heads(block, x)["v"]
    if attention["strategy"] == "mixed":
        bias = locality_bias(grid, attention["locality"]).to(x) if attention["locality"] else 0.0
        whole = attention_map(block, x, attention["pairs"], bias)
        if layers:
            share = attention["mid_weight"]
            whole = (1 - share) * whole + share * torch.stack([mids[n] for n in layers]).mean(dim=0)
        y = whole @ y
    branch = block.ls_1(block.attn.out_proj(attention["gain"] * y.transpose(0, 1).flatten(1)))
    x = x[0] + branch if attention["residual"] else branch
    if attention["ffn"]:
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return visual.ln_post(x) @ visual.proj


def blur(image: Tensor, kernel: int, sigma: float) -> Tensor:
    """Blur ``(3, H, W)`` by a Gaussian, one axis after the other, borders reflected."""
    for axis in (-2, -1):
        reach = min(kernel, 2 * image.shape[axis] - 1) // 2
        weights = torch.exp(-torch.arange(-reach, reach + 1).to(image).square() / (2 * sigma**2))
        weights = weights / weights.sum()
        sides = (0, 0, reach, reach) if axis == -2 else (reach, reach, 0, 0)
        padded = F.pad(image[None], sides, mode="reflect")[0]
        image = padded.unfold(axis, 2 * reach + 1, 1) @ weights
    return image


def map_scores(visual: Any, window: Tensor, text: Tensor, config: Config, size: Sequence[int]) -> Tensor:
    """Return the scores of a window ``(3, height, width)``, enlarged from patches to a size in one step.

    Args:
        visual: The image tower.
        window: Normalised.
        text: ``(names, D)``.
        config: Configuration.
        size: Height and width of the result.

    Returns:
        ``(names, *size)``.
    """
    grid = [side // patch for side, patch in zip(window.shape[-2:], visual.patch_size, strict=True)]
    red, green, blue = window
    gray = (0.2989 * red + 0.587 * green + 0.114 * blue).expand(3, -1, -1)
    versions = {
        "identity": window,
        "gray": gray,
        "blur": blur(window, config["blur_kernel"], config["blur_sigma"]),
        "vflip": window.flip(-2),
        "hflip": window.flip(-1),
    }

    def features(name: str) -> Tensor:
        return F.normalize(encode_tokens(visual, versions[name], config), dim=-1)[1:]  # (patches, D)

    def scores(tokens: Tensor) -> Tensor:
        return resize((text @ tokens.T).reshape(-1, *grid), size)

    first = [features(name) for name in ("identity", "gray", "blur") if name in config["branches"]]
    flips = {"vflip": -2, "hflip": -1}
    second = [scores(features(name)).flip(flips[name]) for name in flips if name in config["branches"]]
    if not first:
        return torch.stack(second).mean(dim=0)
    own = scores(torch.stack(first).mean(dim=0))
    if not second:
        return own
    return config["lam"] * own + (1 - config["lam"]) * torch.stack(second).mean(dim=0)


def spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """Return where windows begin and end along one axis; the last one ends at the edge."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(n * stride + crop, length) for n in range(count)]
    return [(max(end - crop, 0), end) for end in ends]


def slide(visual: Any, image: Tensor, size: Sequence[int], text: Tensor, config: Config) -> Tensor:
    """Return the averaged scores of all windows, enlarged a second time to the original size."""
    height, width = image.shape[-2:]
    total = image.new_zeros((len(text), height, width))
    visits = image.new_zeros((height, width))
    for top, bottom in spans(height, config["crop"], config["stride"]):
        for left, right in spans(width, config["crop"], config["stride"]):
            window = image[:, top:bottom, left:right]
            scores = map_scores(visual, window, text, config, window.shape[-2:])
            total[:, top:bottom, left:right] += scores
            visits[top:bottom, left:right] += 1
    return resize(total / visits, size)


def image_scores(visual: Any, image: Tensor, size: Sequence[int], text: Tensor, config: Config) -> Tensor:
    """Return the scores at the original size, ``(names, *size)``; whole images are refined if asked only."""
    if config["crop"]:
        scores, refined = slide(visual, image, size, text, config), True
    else:
        scores, refined = map_scores(visual, image, text, config, size), config["pamr_whole"]
    if config["pamr_steps"] and refined:
        return refine(resize(image, size), scores, config["pamr_steps"], config["pamr_dilations"])
    return scores


def neighbours(maps: Tensor, dilations: Sequence[int]) -> Tensor:
    """Return the eight neighbours of every pixel at every distance, ``(maps, 8 * dilations, H, W)``."""
    height, width = maps.shape[-2:]
    found: list[Tensor] = []
    for distance in dilations:
        padded = F.pad(maps[None], (distance,) * 4, mode="replicate")[0]
        for y in (0, distance, 2 * distance):
            for x in (0, distance, 2 * distance):
                if (y, x) != (distance, distance):
                    found.append(padded[:, y : y + height, x : x + width])
    return torch.stack(found, dim=1)


def refine(image: Tensor, masks: Tensor, steps: int, dilations: Sequence[int]) -> Tensor:
    """Refine masks ``(names, H, W)`` along the image ``(3, H, W)``, all neighbours of all maps at once."""
    around, centre = neighbours(image, dilations), image[:, None]
    samples = torch.cat([around, centre.expand(-1, len(dilations), -1, -1)], dim=1)
    logits = -(around - centre).abs() / (1e-8 + 0.1 * samples.std(dim=1, keepdim=True))
    weights = logits.mean(dim=0).softmax(dim=0)  # (neighbours, H, W)
    for _ in range(steps):
        masks = (neighbours(masks, dilations) * weights).sum(dim=1)
    return masks


def class_probabilities(scores: Tensor, owner: Sequence[int], logit_scale: float, columns: int = 0) -> Tensor:
    """Return the probability of each class, by one-hot masks of its names.

    Args:
        scores: ``(names, H, W)``.
        owner: Class of each name.
        logit_scale: Factor before the softmax.
        columns: Columns that are worked on together, to save memory; 0 for all.
    """
    probabilities = (scores * logit_scale).softmax(dim=0)
    one_hot = F.one_hot(torch.tensor(owner)).T.to(scores.dtype)[:, :, None, None]  # (classes, names, 1, 1)
    parts = probabilities.split(columns or probabilities.shape[-1], dim=-1)
    return torch.cat([(part[None] * one_hot).amax(dim=1) for part in parts], dim=-1)


def labels(probabilities: Tensor, config: Config, *, background: bool) -> Tensor:
    """Return the labels ``(H, W)`` after the area, probability and closing rules."""
    if config["area_threshold"] is not None:
        areas = F.one_hot(probabilities.argmax(dim=0), len(probabilities)).sum(dim=(0, 1))[int(background) :]
        keep = areas > config["area_threshold"] * areas.sum()
        probabilities = probabilities.clone()
        probabilities[int(background) :] *= keep[:, None, None]
    best, chosen = probabilities.max(dim=0)
    if background:
        chosen[best < config["prob_threshold"]] = 0
    if not config["closing"]:
        return chosen
    padded = F.pad(chosen, (1,) * 4, value=-1)
    grown = padded.unfold(0, 3, 1).unfold(1, 3, 1).amax(dim=(-2, -1))
    padded = F.pad(grown, (1,) * 4, value=len(probabilities))
    return padded.unfold(0, 3, 1).unfold(1, 3, 1).amin(dim=(-2, -1))


@torch.inference_mode()
def segment(
    clip_model: nn.Module,
    pixels: Tensor,
    text: Tensor,
    owner: Sequence[int],
    config: Config,
    *,
    background: bool,
    columns: int = 0,
) -> tuple[Tensor, Tensor]:
    """Segment one image.

    Args:
        clip_model: open_clip model with its own vision transformer, normalised as CLIP is; its dtype is that
            of the computation.
        pixels: ``(3, H, W)`` in [0, 1].
        text: ``(names, D)``.
        owner: Class of each name.
        config: As :meth:`itaclip.ITACLIPConfig.to_dict` gives it; ``batch_size`` is not used.
        background: Whether class 0 is the background.
        columns: As for :func:`class_probabilities`.

    Returns:
        Labels ``(H, W)`` and the probabilities of the classes ``(classes, H, W)``.
    """
    visual: Any = clip_model.visual
    dtype = visual.conv1.weight.dtype
    image = prepare(pixels.to(dtype), max(visual.patch_size), config)
    scores = image_scores(visual, image, pixels.shape[-2:], text.to(dtype), config)
    probabilities = class_probabilities(scores, owner, config["logit_scale"], columns)
    return labels(probabilities, config, background=background), probabilities
