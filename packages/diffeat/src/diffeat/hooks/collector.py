# SPDX-License-Identifier: Apache-2.0
"""Activations collected call by call, and means of attention maps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffeat.hooks.geometry import Geometry
from diffeat.hooks.maps import Scores, attention_map
from diffeat.hooks.recorder import Sink
from diffeat.names.grammar import ActivationName
from diffeat.names.request import Request
from diffeat.names.taps import Tap
from diffeat.options import MapOptions

Keep = Literal["last", "first", "all"] | Collection[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Dtype and device in which activations are kept.

    Attributes:
        dtype: Floating dtype of the features; by default the compute dtype.
        device: Device of the features; by default that of the denoiser.
        with_grad: Whether activations stay part of the autograd graph.
    """

    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    with_grad: bool = False

    def store(self, tensor: Tensor) -> Tensor:
        """Detach, cast and move one activation."""
        tensor = tensor if self.with_grad else tensor.detach()
        dtype = self.dtype if tensor.is_floating_point() else None
        return tensor.to(device=self.device, dtype=dtype)


class Collector(Sink):
    """Keeps activations call by call.

    Args:
        request: The activations to keep.
        keep: Calls to keep: the ``"last"``, the ``"first"``, ``"all"`` or those of the given indices.
        storage: Dtype and device of the kept activations.
        maps: Reduction of attention maps.
    """

    def __init__(self, request: Request, *, keep: Keep, storage: Storage, maps: MapOptions) -> None:
        if isinstance(keep, str) and keep not in {"last", "first", "all"}:
            raise ValueError(f"calls must be 'last', 'first', 'all' or indices, got {keep!r}")
        self.calls: dict[int, dict[ActivationName, Tensor]] = {}
        self.timesteps: dict[int, float] = {}
        self._request = request
        self._keep = keep
        self._storage = storage
        self._maps = maps
        self._names = set(request.names)
        self._order = {name: i for i, name in enumerate(request.names)}
        self._means_of: dict[ActivationName, list[ActivationName]] = {}
        for mean, members in request.means.items():
            for member in members:
                self._means_of.setdefault(member, []).append(mean)
        self._sums: dict[tuple[ActivationName, tuple[int, ...]], tuple[Tensor, int]] = {}
        self._latent: Geometry | None = None

    def compute_map(self, tap: Tap, scores: Scores, rows: slice, columns: slice, batch: int) -> Tensor:
        """Reduce a map; the heads of a map needed only for a mean are averaged at once.

        Chosen heads and tokens apply to means as well.
        """
        options = self._maps
        if tap.name not in self._names and not isinstance(options.heads, tuple):
            options = replace(options, heads="mean")
        return attention_map(scores, rows, columns, options, batch)

    def wants_map(self, tap: Tap, geometry: Geometry, latent: Geometry | None) -> bool:
        """Whether a map is needed: means take maps of middle sides only.

        Source: the authors' aggregation, which takes sides from 1/32 to 1/16 of the image (to 1/8 in
        transformers), that is 1/4 to 1/2 of the latent.
        """
        self._latent = latent
        return tap.name in self._names or self._is_middle(tap, geometry.grid)

    def _is_middle(self, tap: Tap, grid: tuple[int, ...]) -> bool:
        if tap.name.stage is None or self._latent is None:
            return True
        side, whole = grid[-1], self._latent.grid[-1]
        return whole <= 4 * side and 2 * side <= whole

    def start(self, call: int, arguments: dict[str, Any]) -> bool:
        """Begin a call; false if it is not kept."""
        self._sums.clear()
        if isinstance(self._keep, str):
            if self._keep == "first" and call > 0:
                return False
        elif call not in self._keep:
            return False
        if self._keep == "last":
            self.calls.clear()
            self.timesteps.clear()
        self.calls[call] = {}
        timestep = arguments.get("timestep")
        if isinstance(timestep, Tensor) and timestep.numel() and not timestep.is_meta:
            self.timesteps[call] = float(timestep.flatten()[0])
        elif isinstance(timestep, int | float):
            self.timesteps[call] = float(timestep)
        return True

    def take(self, tap: Tap, tensor: Tensor, call: int) -> None:
        """Keep one activation."""
        grid = tuple(tensor.shape[2:-1])
        for mean in self._means_of.get(tap.name, ()):
            if self._is_middle(tap, grid):
                total, count = self._sums.get((mean, grid), (torch.zeros((), device=tensor.device), 0))
                self._sums[mean, grid] = total + tensor.mean(dim=1), count + 1
        if tap.name in self._names:
            self.calls[call][tap.name] = self._storage.store(tensor)

    def finish(self, call: int) -> None:
        """End a call: compute the means and sort everything in execution order."""
        found = self.calls[call]
        for mean in self._request.means:
            parts = [(grid, total / n) for (name, grid), (total, n) in self._sums.items() if name == mean]
            if parts:
                found[mean] = self._storage.store(self._joined(parts))
        self._sums.clear()
        self.calls[call] = {name: found[name] for name in sorted(found, key=self._order.__getitem__)}

    def _joined(self, parts: list[tuple[tuple[int, ...], Tensor]]) -> Tensor:
        """Resize maps of several sides to the latent's, with their keys as channels."""
        largest = max(grid for grid, _ in parts)
        target = self._latent.grid if self._latent is not None and len(self._latent.grid) == 2 else largest
        images = [value.movedim(-1, 1) for _, value in sorted(parts, key=lambda part: part[0])]
        if len(target) != 2:
            return torch.cat(images, dim=1)
        return torch.cat([F.interpolate(image, target, mode="nearest") for image in images], dim=1)
