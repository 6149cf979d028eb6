# SPDX-License-Identifier: Apache-2.0
"""Group normalisation by the statistics of a whole picture while a network sees tiles of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class _Norm:
    """One layer: what it measured so far, and what it normalises by."""

    def __init__(self, layer: nn.GroupNorm) -> None:
        self.layer = layer
        self.count = 0
        self.sums: Tensor | None = None  # (2, groups), of values and of squares, float64
        self.mean: Tensor | None = None  # (groups,)
        self.variance: Tensor | None = None

    def add(self, values: Tensor) -> None:
        groups = values.double().reshape(self.layer.num_groups, -1)
        sums = torch.stack([groups.sum(dim=1), groups.square().sum(dim=1)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += groups.shape[1]

    def adopt(self) -> None:
        if self.sums is not None:
            self.mean = self.sums[0] / self.count
            self.variance = (self.sums[1] / self.count - self.mean.square()).clamp_min(0)
        self.sums, self.count = None, 0

    def apply(self, x: Tensor) -> Tensor | None:
        """Return the normalised ``(1, C, ...)``, or ``None`` while nothing is known."""
        if self.mean is None or self.variance is None:
            return None
        each = self.layer.num_channels // self.layer.num_groups
        scale = (self.variance + self.layer.eps).rsqrt().repeat_interleave(each)
        shift = -self.mean.repeat_interleave(each) * scale
        if self.layer.affine:
            # offloading by groups has put them back to the CPU already
            weight, bias = self.layer.weight.to(scale.device), self.layer.bias.to(scale.device)
            scale = scale * weight
            shift = shift * weight + bias
        shape = (1, -1, *(1,) * (x.ndim - 2))
        wide = x if x.dtype == torch.float64 else x.float()
        return (wide * scale.to(wide).view(shape) + shift.to(wide).view(shape)).to(x.dtype)


class _Reached(Exception):  # noqa: N818 - no error: the rest of the network is not needed
    """The layer that is being measured has seen its tile."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One tile from which statistics are taken.

    Attributes:
        size: Height and width of the tile in cells; layers of finer resolution see a multiple of it.
        keep: Rows and columns of the tile that no other tile has.
        run: Sends the tile through the network.
    """

    size: tuple[int, int]
    keep: tuple[slice, slice]
    run: Callable[[], object]


class GlobalNorms:
    """While entered, all group normalisations of a network can use statistics gathered over many tiles.

    Args:
        network: Called with one tile at a time.
    """

    def __init__(self, network: nn.Module) -> None:
        self._norms = [_Norm(layer) for layer in network.modules() if isinstance(layer, nn.GroupNorm)]
        self._handles: list[RemovableHandle] = []
        self._order: list[_Norm] = []  # as they are called
        self._ordering = False
        self._measured: _Norm | None = None
        self._sample: Sample | None = None

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
        """Take the statistics of all layers over some tiles, one layer after the other.

        A layer is measured when all before it normalise as they will; measured together, they would be wrong
        by more with every layer, most of all on flat pictures. No tile goes further than the layer in
        question.
        """
        self._order, self._ordering = [], True
        samples[0].run()
        self._ordering = False
        for norm in self._order:
            self._measured = norm
            for self._sample in samples:
                with suppress(_Reached):
                    self._sample.run()
            self._measured = None
            norm.adopt()

    def _hook(self, norm: _Norm) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def replace(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if self._measured is norm and self._sample is not None:
                norm.add(_kept(inputs[0], self._sample.size, self._sample.keep))
                raise _Reached
            if self._ordering:
                self._order.append(norm)
            return norm.apply(inputs[0])

        return replace


def _kept(x: Tensor, size: tuple[int, int], keep: tuple[slice, slice]) -> Tensor:
    """Return the kept part of ``(1, C, H, W)``, or of ``(1, C, H * W)`` inside attention, ``(C, h, w)``."""
    image = x[0] if x.ndim == 4 else x[0].unflatten(1, size)  # (C, H, W)
    grow = image.shape[1] // size[0]
    rows, columns = (slice(part.start * grow, part.stop * grow) for part in keep)
    return image[:, rows, columns]
