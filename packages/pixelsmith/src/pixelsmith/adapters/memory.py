# SPDX-License-Identifier: Apache-2.0
"""Memory that a model takes on a GPU, computed without one: by calls of its networks on the meta device."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pixelsmith.core.protocol import Denoiser
from pixelsmith.io.tiles import Tiling, largest_tile

_META = torch.device("meta")
_CONTEXT = 600_000_000  # bytes: CUDA itself, its libraries and their workspaces


class MeasuredModel(Protocol):
    """What is asked of a model, see :class:`pixelsmith.adapters.PipelineModel`."""

    # name of the network among the parts of the pipeline
    network_name: ClassVar[str]

    @property
    def network(self) -> Any:
        """U-Net or transformer."""
        ...

    @property
    def vae(self) -> Any:
        """Autoencoder."""
        ...

    @property
    def pipe(self) -> Any:
        """Pipeline of diffusers."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        ...

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent and side."""
        ...

    def denoiser(self, size: tuple[int, int], patch: tuple[int, int]) -> Denoiser:
        """Return the denoiser of a stage."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Memory of a GPU, in bytes. None of it depends on the size of the image.

    Attributes:
        weights: All networks of the pipeline.
        network: The U-Net or transformer.
        encoder: The largest text encoder.
        vae: The autoencoder, in float32 where it does not work in float16.
        denoising: Activations of one call of the network for a batch of patches.
        autoencoding: Activations of one tile of the autoencoder.
    """

    weights: int
    network: int
    encoder: int
    vae: int
    denoising: int
    autoencoding: int

    @property
    def peak(self) -> int:
        """Most bytes with all networks on the device."""
        return self.weights + max(self.denoising, self.autoencoding) + _CONTEXT

    @property
    def peak_offloaded(self) -> int:
        """Most bytes with ``--offload model``: one network at a time, the autoencoder beside it."""
        calls = (self.network + self.vae + self.denoising, self.vae + self.autoencoding, self.encoder)
        return max(calls) + _CONTEXT

    def to_dict(self) -> dict[str, int]:
        """Return plain values, fit for JSON."""
        return asdict(self) | {"peak": self.peak, "peak_offloaded": self.peak_offloaded}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is entered, and are still held.

    Attributes:
        now: Bytes at this moment.
        peak: Most bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, object] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator and note the memory of its results."""
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in self._known and id(storage) not in before:
                    self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def release(_: object) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, release)
        self.now += size
        self.peak = max(self.peak, self.now)


class _FusedAttention(TorchFunctionMode):
    """Lets attention take the memory of its result only, as the kernels of GPUs do."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attend(query: Tensor, key: Tensor, value: Tensor, *more: object, **options: object) -> Tensor:
    """Return memory for the result of an attention."""
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def count_peak(call: Callable[[], object]) -> int:
    """Return the most bytes of tensors that a call makes and holds at once, on the meta device, too."""
    with torch.no_grad(), _FusedAttention(), LiveBytes() as live:
        call()
    return live.peak


def measure_memory(
    model: MeasuredModel, size: tuple[int, int], patch: tuple[int, int], batch_size: int, tiling: Tiling
) -> DeviceMemory:
    """Return the memory that a stage takes on a GPU.

    ControlNets and LoRAs are left out. Only tensors are counted, not the losses of the allocator.

    Args:
        model: The model.
        size: Height and width of the image in pixels.
        patch: Height and width of a patch in latents.
        batch_size: Patches in one call.
        tiling: Tiles of the autoencoder.
    """
    network: Any = _shell(model.network)
    vae: Any = _shell(model.vae)
    encoders = [
        part for name, part in model.pipe.components.items()
        if isinstance(part, nn.Module) and name not in (model.network_name, "vae")
    ]  # fmt: skip
    upcast = vae.dtype == torch.float16 and bool(vae.config.get("force_upcast"))
    if upcast:
        nn.Module.to(vae, dtype=torch.float32)
    denoiser: Any = copy.copy(model.denoiser(size, patch))
    denoiser.network = network
    denoiser._device = _META
    denoiser.prompts = copy.copy(denoiser.prompts)
    denoiser.prompts.device = _META
    denoiser.controls = None
    x = torch.zeros(batch_size, model.channels, *patch, device=_META)
    origins = [(0, 0)] * batch_size
    side = largest_tile(tiling)
    latents = torch.zeros(1, model.channels, side, side, device=_META, dtype=vae.dtype)
    pixels = torch.zeros(
        1, 3, *(side * model.vae_scale_factor,) * 2, device=_META, dtype=vae.dtype
    )  # fmt: skip
    return DeviceMemory(
        weights=sum(map(_weigh, (network, vae, *encoders))),
        network=_weigh(network),
        encoder=max(map(_weigh, encoders), default=0),
        vae=_weigh(vae),
        denoising=count_peak(lambda: denoiser.predict(x, 0, origins)),
        autoencoding=max(count_peak(lambda: vae.decode(latents)), count_peak(lambda: vae.encode(pixels))),
    )


def _shell(network: Any) -> Any:
    """Return a network of the same configuration and dtype without weights or hooks of offloading."""
    with torch.device(_META):
        made: Any = type(network).from_config(network.config)
    # by the method of torch: that of diffusers warns of layers that it would keep in float32
    return nn.Module.to(made, dtype=network.dtype).eval()


def _weigh(network: nn.Module) -> int:
    return sum(part.numel() * part.element_size() for part in (*network.parameters(), *network.buffers()))
