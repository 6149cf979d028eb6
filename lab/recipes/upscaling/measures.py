# SPDX-License-Identifier: Apache-2.0
"""Measures of enlarged images: content, repetition, detail, colour, seams and distances to drawn scenes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pixelsmith.io.seams import seam_profile
from pixelsmith.store.rows import ArrayRows
from scipy import ndimage
from skimage import feature, transform
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from recipes.probes.judging import Judge
from recipes.probes.network import NAMES, Probe
from recipes.tiny_sdxl.images import SIDE
from recipes.tiny_sdxl.judging import Order

Images = NDArray[np.uint8]
Bool = NDArray[np.bool_]
_OUTLINE = 2  # pixels of the base size around a thing that belong to it
_ALIKE, _LEAST_TEMPLATE = 0.7, 5  # correlation of a copy; pixels, below which everything is alike
COUNTED_AT = 2 * SIDE  # the probe knows things of the base size and of twice that size
CROPS = 4  # crops per image for FID and KID


def resized(images: Images, side: int, filter: Image.Resampling = Image.Resampling.BOX) -> Images:
    """Return images ``(B, H, W, 3)`` at another size."""
    if images.shape[1] == side:
        return images
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side), filter)) for one in images])


def contents(images: Images, orders: Sequence[Order], judge: Judge) -> dict[str, float]:
    """Return the percentages of images with the right colour and shape, no thing, and more than one.

    Things are classified at the size of the base images, where the probe is best, and counted at twice that
    size, at which it knows both repeated things of base size and things enlarged with the image.
    """
    found = judge.classify(resized(images, SIDE))
    counts = judge.count(resized(images, COUNTED_AT))
    figures = {f"{key}_right": _percent(found[key] == _wanted(orders, key)) for key in ("colour", "shape")}
    return figures | {"lost": _percent(counts == 0), "repeated": _percent(counts > 1)}


def _wanted(orders: Sequence[Order], key: str) -> NDArray[np.int64]:
    return np.array([NAMES[key].index(getattr(order.scene.things[0], key)) for order in orders])  # pyright: ignore[reportArgumentType]


def _percent(hits: object) -> float:
    return round(100 * float(np.mean(hits)), 1)


def things_of(images: Images, judge: Judge) -> Bool:
    """Return where the probe, looking at the base size, sees things in images: ``(B, H, W)`` bool."""
    small = judge.segment(resized(images, SIDE))["colour"] > 0
    times = images.shape[1] // SIDE
    return small.repeat(times, axis=1).repeat(times, axis=2)


def detail(images: Images, things: Bool, base_side: int = SIDE) -> dict[str, float]:
    """Return the detail beyond the base size, in levels of 255: of all, on things, and on the ground.

    The detail is the root mean square of the difference from the image reduced to the base size and enlarged
    again; on the ground, what exceeds that of the drawn scene is grain. Mean over images; things include
    their outlines.

    Args:
        images: Images, ``(B, H, W, 3)`` uint8.
        things: Where the things are that the image should show, ``(B, H, W)``.
        base_side: Side of the base images in pixels.
    """
    small = resized(images, base_side)
    back = resized(small, images.shape[1], Image.Resampling.LANCZOS)
    energy = ((images.astype(np.float64) - back) ** 2).mean(axis=-1)
    reach = _OUTLINE * images.shape[1] // base_side
    near = np.stack([ndimage.binary_dilation(mask, iterations=reach) for mask in things])
    parts = {"detail": np.ones_like(near), "detail_things": near, "detail_ground": ~near}
    return {name: round(_strength(energy, where), 3) for name, where in parts.items()}


def _strength(energy: NDArray[np.float64], where: Bool) -> float:
    found = [np.sqrt(one[part].mean()) for one, part in zip(energy, where, strict=True) if part.any()]
    return float(np.mean(found)) if found else 0.0


def copies(images: Images, things: Bool, judge: Judge) -> float:
    """Return the percentage of images with a copy of the thing elsewhere, by template matching on masks.

    The outline of the thing, at its size and at that of the base image, is looked for among all pixels of its
    colour; a match beside the thing is a copy.

    Args:
        images: Images, ``(B, H, W, 3)`` uint8.
        things: Where the thing is in each, ``(B, H, W)``.
        judge: Judge that names the colours of pixels.
    """
    times = images.shape[1] // COUNTED_AT
    named = judge.segment(resized(images, COUNTED_AT))["colour"]
    masks = things[:, ::times, ::times]
    return _percent([_has_copy(*pair) for pair in zip(named, masks, strict=True)])


def _has_copy(named: Images, thing: Bool) -> bool:
    if not thing.any():
        return False
    colour = np.bincount(named[thing]).argmax()
    seen = (named == colour) & (colour > 0)
    rows, columns = ndimage.find_objects(thing.astype(int))[0]
    outline = thing[rows, columns].astype(float)
    beside = ~ndimage.binary_dilation(thing, iterations=2 * _OUTLINE)
    for share in (1.0, SIDE / COUNTED_AT, SIDE / COUNTED_AT / 2):
        template = transform.rescale(outline, share, order=1)
        if min(template.shape) >= _LEAST_TEMPLATE:
            # a rim, without which a filled mask has no contrast to correlate
            found = feature.match_template(seen.astype(float), np.pad(template, 2), pad_input=True)
            if (found[beside] > _ALIKE).any():
                return True
    return False


def worst_seam(images: Images, spacing: int) -> float:
    """Return the step across the line of latents that shows most, over the median of its neighbours.

    Args:
        images: Images, ``(B, H, W, 3)`` uint8; a line counts with the median over them.
        spacing: Pixels per latent.
    """
    return round(seam_profile([ArrayRows(image) for image in images], spacing).worst()[0].ratio, 3)


def worst_line(runs: Sequence[Images], spacing: int) -> dict[str, float]:
    """Return the line that shows most in the images of all seeds: its step over that of its neighbours.

    In few images the edges of things are lines, too: eight drawn scenes have 1.4 to 1.7, forty have 1.15.
    ``line_upper`` is the largest value with the images of any one seed left out.

    Args:
        runs: Images of each seed, ``(B, H, W, 3)`` uint8.
        spacing: Pixels per latent.
    """
    without = [
        worst_seam(np.concatenate([*runs[:number], *runs[number + 1 :]]), spacing)
        for number in range(len(runs))
    ]
    return {"line": worst_seam(np.concatenate(runs), spacing), "line_upper": max(without)}


def saturation(images: Images) -> float:
    """Return the 99th percentile of the saturation of HSV, in levels of 255; mean over images."""
    levels = [np.asarray(Image.fromarray(image).convert("HSV"))[..., 1] for image in images]
    return round(float(np.mean([np.percentile(each, 99) for each in levels])), 1)


class _Features(nn.Module):
    """The pooled features of the frozen probe, in the form that torchmetrics needs."""

    num_features = 192

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe = probe

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * (x.float() / 255) - 1
        for block in self.probe.down:
            x = block(x)
        return torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)


def distances(images: Images, scenes: Images, judge: Judge) -> dict[str, float]:
    """Return FID and KID on the probe's features between crops of base size of two sets of images.

    Args:
        images: Images, ``(B, H, W, 3)`` uint8.
        scenes: Drawn scenes, of the same shape.
        judge: Judge whose probe gives the features.
    """
    features = _Features(judge.probe)
    subset = max(2, min(50, len(images) * CROPS // 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics warns about its memory use
        metrics = {
            "fid": FrechetInceptionDistance(feature=features),
            "kid": KernelInceptionDistance(feature=features, subsets=50, subset_size=subset),
        }
        with torch.random.fork_rng(devices=[]):  # KID draws its subsets from the global generator
            torch.manual_seed(0)
            for metric in metrics.values():
                metric.update(_crops(scenes), real=True)
                metric.update(_crops(images), real=False)
            fid, kid = metrics["fid"].compute(), metrics["kid"].compute()[0]
    return {"fid": float(f"{float(fid):.4g}"), "kid": float(f"{float(kid):.4g}")}


def _crops(images: Images) -> Tensor:
    """Return the four crops of base size around the middle, where the things are, ``(4 B, 3, 64, 64)``."""
    starts = images.shape[1] // 2 - SIDE, images.shape[1] // 2
    parts = [images[:, top : top + SIDE, left : left + SIDE] for top in starts for left in starts]
    return torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2)
