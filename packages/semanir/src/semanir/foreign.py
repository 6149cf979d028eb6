# SPDX-License-Identifier: Apache-2.0
"""Networks of other architectures, such as SwinIR, GRL and HAT, through spandrel (extra ``spandrel``)."""

from __future__ import annotations

import math
import pickle
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from common_kernels import Backend
from common_kernels.runtime.files import atomic_path
from common_kernels.runtime.hub import DType, ModelNotFoundError, load_weights, resolve_device, resolve_dtype
from safetensors.torch import save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

_LEAST_GRID = 16  # pixels; twice as many are shared by neighbouring tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignConfig:
    """What is known of a network of another architecture.

    Attributes:
        architecture: Name of the architecture, such as ``"SwinIR"``.
        in_channels: Channels of the input image.
        out_channels: Channels of the output.
        upscale: Output over input side.
        size_multiple: Grid on which tiles start, in pixels: of the windows, and what the network wants.
        values_per_pixel: Estimate of the numbers kept at once for each pixel of the input.
    """

    architecture: str
    in_channels: int
    out_channels: int
    upscale: int
    size_multiple: int
    values_per_pixel: float


class ForeignNetwork(nn.Module):
    """A network that spandrel loaded, called as :class:`semanir.SemanIR` is.

    Args:
        descriptor: Model of spandrel that turns one image into one.

    Shape:
        - x: ``(B, in_channels, H, W)``, in [0, 1], any size from 1x1
        - output: ``(B, out_channels, upscale * H, upscale * W)``, in [0, 1]

    Raises:
        ValueError: If the network wants square images, such as crops of faces.
    """

    def __init__(self, descriptor: ImageModelDescriptor[Any]) -> None:
        super().__init__()
        if descriptor.size_requirements.square:
            raise ValueError(f"{descriptor.architecture.name} takes square images only, such as faces")
        self.network: nn.Module = descriptor.model
        self._descriptor = descriptor
        self.config = _describe(descriptor)

    def forward(self, x: Tensor, *, k: int | None = None, backend: Backend = "auto") -> Tensor:
        """Restore a batch of images.

        Args:
            x: ``(B, in_channels, H, W)``; clipped to [0, 1], in which these networks are trained.
            k: Must be ``None``: a number of keys belongs to SemanIR.
            backend: Not used.

        Raises:
            ValueError: If ``k`` is given.
        """
        if k is not None:
            raise ValueError(f"k belongs to SemanIR, but this network is {self.config.architecture}")
        # spandrel pads to the size that the network wants, and promises that for single images only
        return torch.cat([self._descriptor(image) for image in x.clamp(0, 1).split(1)])


def load_foreign(
    file: Path, *, device: str | torch.device = "auto", dtype: DType | torch.dtype = "auto"
) -> ForeignNetwork:
    """Load weights of another architecture, which is found out from the names of the tensors.

    Args:
        file: ``.safetensors`` file.
        device: Device; ``"auto"`` takes the accelerator if there is one.
        dtype: Compute dtype; ``"auto"`` is float32.

    Raises:
        ImportError: If the extra is missing.
        ModelNotFoundError: If the file is damaged, of no architecture that spandrel knows, or needs more than
            an image.
        ValueError: If the architecture does not run in the dtype, or takes square images only.
    """
    descriptor = _detect(load_weights(file.parent, file.name), file)
    from spandrel import UnsupportedDtypeError

    network = ForeignNetwork(descriptor)
    try:
        descriptor.to(resolve_device(device), resolve_dtype(dtype))
    except UnsupportedDtypeError as error:
        raise ValueError(f"{network.config.architecture} does not run in {dtype}: {error}") from error
    return network.eval()


def convert_pickle(source: Path, target: Path) -> str:
    """Take the tensors out of a pickle, as ``.pth`` files of restoration networks are, into safetensors.

    Read by the loader of torch that builds tensors and plain values only (``weights_only``).

    Args:
        source: Pickle of a state dict, alone or below a key such as ``params_ema``.
        target: ``.safetensors`` file to write.

    Returns:
        Name of the architecture.

    Raises:
        ImportError: If the extra is missing.
        ModelNotFoundError: If the file is no such pickle, or of no known architecture.
        ValueError: If ``target`` has another suffix.
        OSError: If a file cannot be read or written.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"the file to write must be a .safetensors, got {target}")
    _check_extra()
    from spandrel import canonicalize_state_dict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols that are then refused
            stored = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelNotFoundError(f"{source} is damaged, or holds more than tensors: not opened") from error
    values = canonicalize_state_dict(stored) if isinstance(stored, dict) else {}
    weights = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    # the loaders of some architectures rename what they are given
    architecture = _detect(dict(weights), source).architecture.name
    with atomic_path(target) as part:
        save_file({name: value.contiguous().clone() for name, value in weights.items()}, part)
    return architecture


def _check_extra() -> None:
    if find_spec("spandrel") is None:
        raise ImportError('weights of other architectures need spandrel: pip install "semanir[spandrel]"')


def _detect(weights: dict[str, Tensor], file: Path) -> ImageModelDescriptor[Any]:
    _check_extra()
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    try:
        found = ModelLoader().load_from_state_dict(weights)
    except UnsupportedModelError as error:
        raise ModelNotFoundError(f"{file} is of no architecture that spandrel knows") from error
    except Exception as error:  # of whichever architecture took these for its own
        raise ModelNotFoundError(f"{file} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, ImageModelDescriptor):
        raise ModelNotFoundError(f"{file} is {found.architecture.name}, which needs a mask besides the image")
    return found


def _describe(descriptor: ImageModelDescriptor[Any]) -> ForeignConfig:
    grid = descriptor.size_requirements.multiple_of
    window = getattr(descriptor.model, "window_size", 1)
    grid = math.lcm(grid, window if isinstance(window, int) and window > 0 else 1)
    widest = max((len(weight) for weight in descriptor.model.parameters() if weight.ndim > 1), default=64)
    return ForeignConfig(
        architecture=descriptor.architecture.name,
        in_channels=descriptor.input_channels,
        out_channels=descriptor.output_channels,
        upscale=descriptor.scale,
        size_multiple=grid * -(-_LEAST_GRID // grid),
        values_per_pixel=10 * widest + 256 * descriptor.scale**2,
    )
