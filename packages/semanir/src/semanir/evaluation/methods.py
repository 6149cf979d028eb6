# SPDX-License-Identifier: Apache-2.0
"""Test images, and the classical methods beside a network."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semanir.data.crops import read_tensor
from semanir.data.folders import ImagePair, Stored
from semanir.degradations.compression import compress_jpeg
from semanir.degradations.mosaic import demosaic_malvar, mosaic
from semanir.degradations.scaling import crop_to_multiple, resize_bicubic
from semanir.evaluation.protocol import Baseline, Protocol
from semanir.metrics import rgb_to_y


def make_test_image(pair: ImagePair, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Return the degraded and the clean image, ``(C, H, W)``, fp32, nominally in [0, 1].

    Noise is that of KAIR: drawn by numpy's RandomState(0) anew for each image, neither clipped nor rounded.

    Raises:
        ImageError: If a file cannot be read.
    """
    clean = _read(pair.clean, protocol)
    if pair.degraded is not None:
        return _read(pair.degraded, protocol), clean
    if protocol.task == "denoise":
        C, H, W = clean.shape
        noise = np.random.RandomState(0).normal(0, protocol.sigma / 255, (H, W, C)).astype(np.float32)
        return clean + torch.from_numpy(noise).permute(2, 0, 1), clean
    if protocol.task == "jpeg":
        return compress_jpeg(clean[None], protocol.quality)[0], clean
    if protocol.task == "demosaic":
        raw = mosaic(clean[None])
        return (demosaic_malvar(raw)[0].clamp(0, 1) * 255).round() / 255, clean
    clean = crop_to_multiple(clean, protocol.scale)
    small = resize_bicubic(clean, 1 / protocol.scale).clamp(0, 1)
    return (small * 255).round() / 255, clean


def _read(path: Path | Stored, protocol: Protocol) -> Tensor:
    if not protocol.grey:
        x = read_tensor(path, 3)
    elif protocol.task == "jpeg":  # MATLAB's Y, rounded; a grey file as it is
        colour = read_tensor(path, 3)
        is_grey = bool((colour[0] == colour[1]).all() and (colour[0] == colour[2]).all())
        x = colour[:1] if is_grey else (rgb_to_y(colour) * 255).round() / 255
    else:
        x = (read_tensor(path, 1) * 255).round() / 255
    return x


def run_baseline(name: Baseline, degraded: Tensor, protocol: Protocol) -> Tensor:
    """Return what a classical method makes of ``(C, H, W)``; it is given the level of the noise."""
    if name == "input":
        return degraded
    if name == "bicubic":
        return resize_bicubic(degraded, protocol.scale)
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle  # extra "baselines"

    image = degraded.permute(1, 2, 0).numpy()
    sigma = protocol.sigma / 255
    if name == "tv":
        weight = (1.1 if len(degraded) == 3 else 0.9) * max(sigma, 1e-6)
        found = denoise_tv_chambolle(image, weight=weight, channel_axis=-1)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of divisions on flat patches
            sizes = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * max(sigma, 1e-6), "sigma": sigma}
            found = denoise_nl_means(image, fast_mode=True, channel_axis=-1, **sizes)
    return torch.from_numpy(np.asarray(found, dtype=np.float32)).permute(2, 0, 1)
