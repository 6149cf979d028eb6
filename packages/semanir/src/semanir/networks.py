# SPDX-License-Identifier: Apache-2.0
"""The networks that :class:`semanir.Restorer` applies: SemanIR, and those of other architectures.

Of either it reads ``config.in_channels``, ``out_channels``, ``upscale``, ``size_multiple`` and
``values_per_pixel``, and calls ``network(x, k=...)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import torch
from common_kernels.runtime.hub import DType, HubOptions

from semanir.foreign import ForeignNetwork, load_foreign
from semanir.model import SemanIR
from semanir.weights import find_folder, holds_semanir

Network = SemanIR | ForeignNetwork


def load_network(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: DType | torch.dtype = "auto",
    **hub: Unpack[HubOptions],
) -> Network:
    """Load a network in evaluation mode, whatever its architecture.

    Args:
        name_or_path: Shipped name, folder, ``"owner/name"`` on the hub, or a ``.safetensors`` file: of
            SemanIR, or of an architecture that spandrel knows (extra ``spandrel``).
        device: Device; ``"auto"`` takes the accelerator if there is one.
        dtype: Compute dtype; ``"auto"`` is float32, whatever the file stores.
        **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and ``force_download``.

    Raises:
        ModelNotFoundError: If there is no such model or its files cannot be used.
        ImportError: If the file needs spandrel and it is missing.
        ValueError: If device or dtype are unknown or do not suit the network.
    """
    place = find_folder(name_or_path, **hub)
    if place.is_file() and not holds_semanir(place):
        return load_foreign(place, device=device, dtype=dtype)
    return SemanIR.from_pretrained(place, device=device, dtype=dtype)
