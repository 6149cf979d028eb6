# SPDX-License-Identifier: Apache-2.0
"""Group normalisation by the statistics of a whole image while a network sees tiles of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pixelsmith.io.lockstep import Lockstep


class _Norm:
    """One layer: the statistics gathered so far, and those it normalises by."""

    def __init__(self, layer: nn.GroupNorm) -> None:
        self.layer = layer
        self.count = 0
        self.sums: Tensor | None = None  # (2, groups), of values and of squares, float64

    def add(self, values: Tensor) -> None:
        """Add the values of one input, ``(C, h, w)``."""
        groups = values.double().reshape(self.layer.num_groups, -1)
        sums = torch.stack([groups.sum(dim=1), groups.square().sum(dim=1)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += groups.shape[1]

    def apply(self, x: Tensor, output: Tensor) -> Tensor:
        """Write the normalised ``(B, C, ...)`` over the output of the layer, once there are statistics."""
        if self.sums is None:
            return output
        mean = self.sums[0] / self.count
        variance = (self.sums[1] / self.count - mean.square()).clamp_min(0)
        each = self.layer.num_channels // self.layer.num_groups
        scale = (variance + self.layer.eps).rsqrt().repeat_interleave(each)
        shift = -mean.repeat_interleave(each) * scale
        if self.layer.affine:
            scale = scale * self.layer.weight
            shift = shift * self.layer.weight + self.layer.bias
        shape = (1, -1, *(1,) * (x.ndim - 2))
        wide = torch.promote_types(x.dtype, torch.float32)
        factor, term = (part.to(x.device, wide).view(shape) for part in (scale, shift))
        # into the output that the layer made, so that nothing of its size is made besides
        return torch.addcmul(term, x, factor, out=output)


@dataclass(frozen=True, slots=True)
class Sample:
    """Windows of one size that go through the network together, a part of all windows.

    Attributes:
        size: Height and width of a window in latents; layers of finer resolution see a multiple of it.
        keeps: Rows and columns of each window that no other window covers.
        run: Function that passes the windows through the network as a batch.
    """

    size: tuple[int, int]
    keeps: Sequence[tuple[slice, slice]]
    run: Callable[[], object]


class GlobalNorms:
    """While entered, all group normalisations of a network can use statistics gathered over many windows.

    Args:
        network: Network, called with one tile at a time, or with the windows of a sample.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._norms = [_Norm(layer) for layer in network.modules() if isinstance(layer, nn.GroupNorm)]
        self._handles: list[RemovableHandle] = []
        self._march: Lockstep[Sample] | None = None

    def __enter__(self) -> GlobalNorms:
        for norm in self._norms:
            self._handles.append(norm.layer.register_forward_hook(self._hook(norm)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def gather(self, samples: Sequence[Sample]) -> None:
        """Take the statistics of all layers over some windows.

        The windows pass each layer together and are normalised by their common statistics. Measured one by
        one, each normalised by itself, the input of a layer would differ from that in use, and the error
        grows from layer to layer, most of all where an image is flat.

        Args:
            samples: All windows. One sample after the other is on the device; those that wait for the others
                at a layer wait in host memory.
        """
        self._march = Lockstep(samples)
        try:
            with self._march.watching(self._network):
                self._march.run(lambda sample: sample.run())
        finally:
            self._march = None

    def _hook(self, norm: _Norm) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def replace(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self._march is not None:
                sample = self._march.item
                for window, keep in zip(inputs[0], sample.keeps, strict=True):
                    norm.add(_kept(window, sample.size, keep))
                self._march.wait(inputs[0], output)
            return norm.apply(inputs[0], output)

        return replace


def _kept(x: Tensor, size: tuple[int, int], keep: tuple[slice, slice]) -> Tensor:
    """Return the kept part of ``(C, H, W)``, or of ``(C, H * W)`` inside attention, ``(C, h, w)``."""
    image = x if x.ndim == 3 else x.unflatten(1, size)  # (C, H, W)
    grow = image.shape[1] // size[0]
    rows, columns = (slice(part.start * grow, part.stop * grow) for part in keep)
    return image[:, rows, columns]
