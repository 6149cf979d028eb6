# SPDX-License-Identifier: Apache-2.0
"""Tiles of any number of images through one network, in batches, and back into rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, tee
from typing import Protocol

import psutil
import torch
from common_kernels.tiling import TilePlan, largest_tile, map_tiles, plan_tiles, stream_tiles
from torch import Tensor, nn

from semanir.options import RestoreOptions
from semanir.restoring.source import Source

__all__ = ["NetworkConfig", "TileRunner", "check_options"]

_LARGEST_TILE = 1024  # pixels; beyond it, time per pixel no longer falls and progress gets rare
_MEMORY_SHARE = 0.5  # of what is free
_CPU_BUDGET = 1 << 30  # bytes; larger tiles are no faster there
# equal shapes follow each other, so that they fit into one batch: quarter turns swap the sides
_TURNS = (0, 2, 4, 6, 1, 3, 5, 7)


class NetworkConfig(Protocol):
    """What is known of a network besides its layers."""

    @property
    def in_channels(self) -> int:
        """Channels of the input: 1 or 3."""
        ...

    @property
    def upscale(self) -> int:
        """Pixels of the output per pixel of the input and side."""
        ...

    @property
    def size_multiple(self) -> int:
        """Grid of the network's windows, in pixels of the input."""
        ...

    @property
    def values_per_pixel(self) -> float:
        """Numbers kept at once for each pixel of the input."""
        ...


def overlap_of(config: NetworkConfig, options: RestoreOptions) -> int:
    """Return the overlap of tiles in pixels."""
    return 2 * config.size_multiple if options.overlap is None else options.overlap


def check_options(config: NetworkConfig, options: RestoreOptions) -> None:
    """Check what options ask of a network.

    Raises:
        ValueError: If it takes other channels than 1 or 3, enlarges while ``strength`` is below 1, or tiles
            are too small for it.
    """
    grid, overlap = config.size_multiple, overlap_of(config, options)
    if isinstance(options.tile, int) and options.tile < overlap + grid:
        raise ValueError(
            f"tile must be at least overlap + {grid}, the grid of this network, "
            f"got tile={options.tile} and {overlap=}"
        )
    if options.strength != 1 and config.upscale != 1:
        raise ValueError(
            f"strength must be 1 for a network that enlarges, "
            f"got strength={options.strength} and upscale={config.upscale}"
        )
    if config.in_channels not in (1, 3):
        raise ValueError(f"the network takes {config.in_channels} channels; Restorer handles 1 and 3")


class TileRunner:
    """One pass over images; what lacked memory once is done in smaller tiles from then on.

    Args:
        model: The network: ``(B, in_channels, H, W)`` and ``k`` to ``(B, C, upscale H, upscale W)``.
        config: What is known of it.
        options: How images are restored.
        batch_size: Tiles that go through the network together, be they of one image or of several.
        lock: Held while the network runs, so that threads share it.
    """

    def __init__(
        self,
        model: nn.Module,
        config: NetworkConfig,
        options: RestoreOptions,
        *,
        batch_size: int,
        lock: threading.Lock,
    ) -> None:
        check_options(config, options)
        self._model, self._config, self._options = model, config, options
        self._batch_size, self._lock = batch_size, lock
        self._overlap = overlap_of(config, options)
        self._smallest = self._overlap + config.size_multiple
        # sides above this are halved, once memory ran out
        self._limit: int | None = None
        self._alone = False

    @property
    def _parameter(self) -> Tensor:
        return next(self._model.parameters())

    def plan(self, height: int, width: int) -> TilePlan:
        """Return the tiles of an image."""
        longest, tile, grid = max(height, width), self._options.tile, self._config.size_multiple
        if tile == "auto":
            tile = self._largest_tile()
        if tile is None or tile >= longest:
            return plan_tiles(height, width, tile=longest)
        # tiles start on the grid of the windows, so that inner windows are those of the whole image
        return plan_tiles(height, width, tile=tile // grid * grid, overlap=self._overlap, multiple=grid)

    def _largest_tile(self) -> int:
        return largest_tile(
            int(_memory_for(self._parameter.device) / self._batch_size),
            self._config.values_per_pixel * self._parameter.element_size(),
            multiple=self._config.size_multiple,
            minimum=self._smallest,
            maximum=max(_LARGEST_TILE, self._smallest),
        )

    def passes(self, source: Source) -> int:
        """Return how often the network runs on each tile."""
        parts = source.channels if self._config.in_channels == 1 else 1
        return parts * (len(_TURNS) if self._options.self_ensemble else 1)

    def run(
        self, sources: Iterable[Source], advance: Callable[[int], None] | None = None
    ) -> Iterator[Iterator[tuple[int, Tensor]]]:
        """Yield for each image its bands from the top down; each must be taken before the next image.

        Args:
            sources: Images; as many are taken in advance as a batch has tiles.
            advance: Called with the passes of the network since the last call.

        Yields:
            Pairs of the first row and ``(1 or 3, rows, W)``, fp32, on the CPU, not clipped.
        """
        planned, again = tee((source, self.plan(source.height, source.width)) for source in sources)
        results = self._through_network(_flat(self._inputs(*each) for each in planned), advance)
        for source, plan in again:
            tiles = (self._tile(source, results) for _ in range(len(plan)))
            yield stream_tiles(plan.scaled(self._config.upscale), tiles)

    def _inputs(self, source: Source, plan: TilePlan) -> Iterator[Tensor]:
        """Yield what goes into the network, tile by tile: channels one by one or together, and turned."""
        for box in plan:
            x = source.colour(box.top, box.bottom, box.left, box.right)
            # grey goes through a colour network as three equal channels
            parts = x.split(1) if self._config.in_channels == 1 else (x.expand(3, -1, -1),)
            for part in parts:
                yield from (_turn(part, turn) for turn in self._turns)

    @property
    def _turns(self) -> tuple[int, ...]:
        return _TURNS if self._options.self_ensemble else (0,)

    def _tile(self, source: Source, results: Iterator[Tensor]) -> Tensor:
        """Make one tile of the next results of the network."""
        turns, parts = self._turns, self.passes(source) // len(self._turns)
        found: list[Tensor] = []
        for _ in range(parts):
            mean: Tensor | None = None
            for turn, y in zip(turns, islice(results, len(turns)), strict=True):
                y = _turn_back(y.float(), turn)
                mean = y if mean is None else mean.add_(y)
            assert mean is not None, "every tile goes through the network"
            found.append(mean / len(turns) if len(turns) > 1 else mean)
        tile = torch.cat(found)
        return tile.mean(dim=0, keepdim=True) if len(tile) > source.channels else tile

    def _through_network(
        self, inputs: Iterator[Tensor], advance: Callable[[int], None] | None
    ) -> Iterator[Tensor]:
        for batch in _batches(inputs, self._batch_size):
            with self._lock, torch.inference_mode():
                found = self._call(torch.stack(batch).to(self._parameter.device)).cpu()
            if advance is not None:
                advance(len(batch))
            # a tensor of inference mode could not be written to
            yield from found.clone().unbind()

    def _call(self, batch: Tensor) -> Tensor:
        """Run the network, on smaller tiles each time that memory runs out."""
        while True:
            try:
                return self._network(batch) if self._fits(batch) else self._in_parts(batch)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or not self._shrink(batch):
                    raise
            if batch.device.type != "cpu":  # outside of the handler, whose traceback holds the tensors
                torch.get_device_module(batch.device).empty_cache()

    def _fits(self, batch: Tensor) -> bool:
        inside = self._limit is None or max(batch.shape[-2:]) <= self._limit
        return inside and not (self._alone and len(batch) > 1)

    def _shrink(self, batch: Tensor) -> bool:
        """Take less at once; return whether that was possible."""
        if len(batch) > 1 and not self._alone:
            self._alone = True
            return True
        grid, longest = self._config.size_multiple, max(batch.shape[-2:])
        side = longest if self._limit is None else min(longest, self._limit)
        if side <= self._smallest:
            return False
        self._limit = max(self._smallest, side // 2 // grid * grid)
        return True

    def _in_parts(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[-2:]
        side = self._limit or max(height, width)
        plan = (
            plan_tiles(height, width, tile=side)
            if side >= max(height, width)
            else plan_tiles(
                height, width, tile=side, overlap=self._overlap, multiple=self._config.size_multiple
            )
        )
        scale = self._config.upscale
        return torch.stack([map_tiles(self._network, image, plan, scale=scale) for image in batch])

    def _network(self, batch: Tensor) -> Tensor:
        batch = batch.to(self._parameter.dtype, memory_format=torch.channels_last)
        return self._model(batch, k=self._options.k)


def _flat(groups: Iterable[Iterator[Tensor]]) -> Iterator[Tensor]:
    for group in groups:
        yield from group


def _batches(inputs: Iterator[Tensor], batch_size: int) -> Iterator[list[Tensor]]:
    """Group neighbours of equal shape."""
    batch: list[Tensor] = []
    for x in inputs:
        if batch and x.shape != batch[0].shape:
            yield batch
            batch = []
        batch.append(x)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _turn(x: Tensor, number: int) -> Tensor:
    x = torch.rot90(x, number % 4, (-2, -1))
    return x.flip(-1) if number >= 4 else x


def _turn_back(x: Tensor, number: int) -> Tensor:
    x = x.flip(-1) if number >= 4 else x
    return torch.rot90(x, -(number % 4), (-2, -1))


def _memory_for(device: torch.device) -> float:
    """Return the bytes that tiles may take."""
    free = getattr(torch.get_device_module(device), "mem_get_info", None)
    if free is not None:  # of CUDA, ROCm and XPU; MPS shares the memory of the processor
        return free(device)[0] * _MEMORY_SHARE
    return min(psutil.virtual_memory().available * _MEMORY_SHARE, _CPU_BUDGET)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # the CPU allocator raises a plain RuntimeError
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)
