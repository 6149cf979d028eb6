# SPDX-License-Identifier: Apache-2.0
"""Networks that enlarge images, of the many architectures that spandrel reads."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common_kernels.runtime.hub import ModelNotFoundError

from pixelsmith.adapters.weights import refuse_pickle
from pixelsmith.store.rows import Pixels


class SpandrelUpscaler:
    """A network of spandrel that enlarges images.

    Args:
        network: ``spandrel.ImageModelDescriptor`` of RGB images.

    Raises:
        ValueError: If it takes or makes other channels, or does not enlarge.
    """

    def __init__(self, network: Any) -> None:
        if (network.input_channels, network.output_channels) != (3, 3):
            raise ValueError(
                "the upscaler must take and make RGB, has "
                f"{network.input_channels} and {network.output_channels} channels"
            )
        if network.scale < 2:
            raise ValueError(f"the upscaler must enlarge, its scale is {network.scale}")
        self.network = network.eval()

    @property
    def scale(self) -> int:
        """Enlargement of the sides."""
        return int(self.network.scale)

    @torch.no_grad()
    def enlarge(self, pixels: Pixels) -> Pixels:
        """Return a tile, ``(scale * h, scale * w, 3)`` uint8, of ``(h, w, 3)`` uint8."""
        x = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]  # (1, 3, h, w)
        y = self.network(x.to(self.network.device, self.network.dtype) / 255)[0].float().clamp(0, 1)
        return np.ascontiguousarray((255 * y).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())

    def describe(self) -> dict[str, object]:
        """Return architecture, scale and checksum of the weights."""
        crc = 0
        for name, weight in sorted(self.network.model.state_dict().items()):
            values = weight.detach().float().cpu().contiguous().numpy()
            crc = zlib.crc32(values.tobytes(), zlib.crc32(name.encode(), crc))
        return {"architecture": str(self.network.architecture.id), "scale": self.scale, "weights": crc}


def load_upscaler(file: str | Path, precision: torch.dtype, device: torch.device) -> SpandrelUpscaler:
    """Load a network that enlarges images from a ``.safetensors`` file.

    Args:
        file: The file, in the layout of the authors of the network.
        precision: Dtype, where the architecture works in it; float32 otherwise.
        device: Device.

    Raises:
        ModelNotFoundError: If it does not exist or is a pickle, which can run code.
        ImportError: If the package spandrel is missing.
        ValueError: If it is no network that enlarges RGB images.
    """
    refuse_pickle(Path(file))
    if not Path(file).is_file():
        raise ModelNotFoundError(f"no upscaler {str(file)!r}; name a .safetensors file")
    try:
        import spandrel
    except ImportError as error:
        raise ImportError("upscalers need the package spandrel: pip install pixelsmith[spandrel]") from error
    try:
        found: Any = spandrel.ModelLoader(device="cpu").load_from_file(str(file))
    except spandrel.UnsupportedModelError as error:
        raise ValueError(f"{file} is no upscaler that spandrel knows") from error
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise ValueError(f"{file} must be a network that enlarges images, is a {found.architecture.name}")
    works = precision == torch.float32 or (
        found.supports_half if precision == torch.float16 else found.supports_bfloat16
    )
    return SpandrelUpscaler(found.to(device, precision if works else torch.float32))
