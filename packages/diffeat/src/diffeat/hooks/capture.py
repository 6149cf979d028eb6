# SPDX-License-Identifier: Apache-2.0
"""Capture of activations around any call of the user."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from diffeat.hooks.collector import Collector, Keep, Storage
from diffeat.hooks.guards import refuse_caches, uncompiled
from diffeat.hooks.recorder import Recorder, StopForward
from diffeat.names.grammar import ActivationName, Names
from diffeat.names.request import resolve
from diffeat.names.sources import denoiser_of
from diffeat.options import MapOptions


class Recording(Mapping[str, Tensor]):
    """Activations of the calls that were kept.

    As a mapping it shows the latest call. Batches are those of the caller: with classifier-free guidance
    in one call, unconditional images come first.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    @property
    def calls(self) -> tuple[int, ...]:
        """Indices of the kept calls of the denoiser, from 0."""
        return tuple(self._collector.calls)

    @property
    def timesteps(self) -> dict[int, float]:
        """Timestep of each kept call, in the model's own units."""
        return dict(self._collector.timesteps)

    def at(self, call: int) -> dict[str, Tensor]:
        """Activations of one call.

        Raises:
            LookupError: If the call was not kept.
        """
        if call not in self._collector.calls:
            raise LookupError(f"call must be one of the kept {self.calls}, got {call}")
        return {str(name): value for name, value in self._collector.calls[call].items()}

    def __getitem__(self, name: str | ActivationName) -> Tensor:
        return self._latest()[str(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._latest())

    def __len__(self) -> int:
        return len(self._latest())

    def _latest(self) -> dict[str, Tensor]:
        return self.at(self.calls[-1]) if self.calls else {}


@contextmanager
def capture(
    source: object,
    names: Names,
    *,
    calls: Keep = "last",
    stop_after: int | None = None,
    maps: MapOptions | None = None,
    storage: Storage | None = None,
) -> Generator[Recording]:
    """Record activations of a denoiser while a pipeline or model is used in the block.

    Args:
        source: A diffusers pipeline or denoiser.
        names: Names, globs, presets, means of maps or module paths.
        calls: Calls of the denoiser to keep: the ``"last"``, the ``"first"``, ``"all"`` or given
            indices.
        stop_after: Index of the call after whose last requested activation the block is left; the rest of
            the block does not run. ``None`` never leaves it. With offloaded inner modules the call is
            finished first.
        maps: Reduction of attention maps.
        storage: Dtype and device of the activations, and whether to keep gradients.

    Yields:
        Recorded activations, complete at the end of the block.

    Raises:
        LookupError: If a name is unknown.
        RuntimeError: If the model skips blocks by a cache.
    """
    model = denoiser_of(source)
    refuse_caches(model)
    request = resolve(model, names)
    collector = Collector(request, keep=calls, storage=storage or Storage(), maps=maps or MapOptions())
    recorder = Recorder(model, request.taps, collector, stop_after=stop_after)
    try:
        with uncompiled(), recorder:
            yield Recording(collector)
    except StopForward as stop:
        if stop.args != (recorder,):
            raise  # it ends an enclosing block
