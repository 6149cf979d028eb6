# SPDX-License-Identifier: Apache-2.0
"""Cache of text features: its folder, keys and files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from common_kernels.runtime.files import write_bytes
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

_log = logging.getLogger(__name__)
# values of a tensor that are hashed one by one; the others enter as a sum
_SAMPLES = 1024


def default_cache() -> Path:
    """Return the folder of caches: ``ITACLIP_CACHE`` if set, else that of the system."""
    if own := os.environ.get("ITACLIP_CACHE"):
        return Path(own)
    return user_cache_path("itaclip", appauthor=False)


@torch.no_grad()
def weights_fingerprint(clip_model: nn.Module) -> str:
    """Return a short hash of all weights outside the visual tower; the same on every device.

    A cryptographic hash of every byte takes half a second for a ViT-B, longer than loading what it is the key
    to. So each tensor gives its name, dtype and shape, evenly spread values and the exact integer sum of its
    bit patterns.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(clip_model.state_dict(keep_vars=False).items()):
        if name.startswith("visual."):
            continue
        flat = tensor.detach().reshape(-1)  # (numel,)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {_bit_sum(flat)} ".encode())
        step = max(1, len(flat) // _SAMPLES)
        digest.update(flat[::step].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _bit_sum(flat: Tensor) -> int:
    size = flat.element_size()
    even = flat.numel() * size // 8 * 8 // size
    words = flat[:even]
    if words.storage_offset() * size % 8:
        words = words.clone()
    # eight bytes at a time, wrapping around: memory-bound, and no order of summing changes it
    return int(words.view(torch.int64).sum()) if even else 0


def load_features(file: Path, num_texts: int) -> Tensor | None:
    """Return ``(num_texts, D)`` fp32 features from a file; ``None`` if it is not there or not usable."""
    try:
        features = load(file.read_bytes())["features"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        _log.warning("text features are computed again: %s cannot be used (%s)", file, error)
        return None
    usable = features.ndim == 2 and len(features) == num_texts and features.dtype == torch.float32
    return features if usable else None


def store_features(file: Path, features: Tensor, texts: Sequence[str]) -> None:
    """Cache features; a folder that cannot be written only gives a warning."""
    content = save({"features": features.contiguous()}, metadata={"texts": json.dumps(list(texts))})
    try:
        write_bytes(file, content, sync=False)
    except OSError as error:
        _log.warning("text features are not cached: %s cannot be written (%s)", file, error.strerror or error)
