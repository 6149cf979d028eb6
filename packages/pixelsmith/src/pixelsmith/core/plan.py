# SPDX-License-Identifier: Apache-2.0
"""The patches of a step, and which patch owns which position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixelsmith.config import JobConfig
from pixelsmith.core.philox import Stream, Use
from pixelsmith.store.regions import pieces

__all__ = ["PatchPlan", "estimate_calls", "make_plan", "patch_side"]

_CELL = 64
_DRAWS = 6  # covers that are drawn, of which the one with the fewest patches is taken
_SIDE = 32  # patches along an axis up to which a random cover is drawn to count its patches


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """Patches of one step, in the order in which they take positions.

    Attributes:
        size: Height and width of the canvas.
        patch: Height and width of a patch.
        wraps: Whether rows and columns join at the borders.
        origins: First row and column of each patch, ``(n, 2)`` int64; beyond the border by the overhang.
        coins: Two fair coins of each patch, for its chess mask, ``(n, 2)`` uint8.
    """

    size: tuple[int, int]
    patch: tuple[int, int]
    wraps: tuple[bool, bool]
    origins: np.ndarray
    coins: np.ndarray

    def __len__(self) -> int:
        return len(self.origins)

    def origin(self, index: int) -> tuple[int, int]:
        """Return row and column where a patch begins."""
        row, column = self.origins[index].tolist()
        return row, column

    def coin_pair(self, index: int) -> tuple[int, int]:
        """Return the two coins of a patch."""
        left, down = self.coins[index].tolist()
        return left, down

    def place(self, index: int) -> tuple[int, int]:
        """Return row and column of a patch, or of the nearest one inside if it reaches over the border."""
        row, column = (
            at if wraps else min(max(at, 0), side - length)
            for at, side, length, wraps in zip(
                self.origin(index), self.size, self.patch, self.wraps, strict=True
            )
        )
        return row, column

    def inside(self, index: int) -> tuple[slice, slice]:
        """Return the rows and columns of a patch that lie on the canvas."""
        rows, columns = (
            slice(0, length) if wraps else slice(max(0, -at), min(length, side - at))
            for at, side, length, wraps in zip(
                self.origin(index), self.size, self.patch, self.wraps, strict=True
            )
        )
        return rows, columns

    def place_inside(self, index: int) -> tuple[int, int]:
        """Return the first row and column of the part of a patch that lies on the canvas."""
        row, column = self.origin(index)
        return max(0, row), max(0, column)

    def positions(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the canvas rows and columns of a patch, mirrored beyond the border."""
        return self._positions(index, axis=0), self._positions(index, axis=1)

    def _positions(self, index: int, *, axis: int) -> np.ndarray:
        at, side = np.arange(self.patch[axis]) + self.origin(index)[axis], self.size[axis]
        if self.wraps[axis]:
            return at % side
        at = np.abs(at)
        return np.minimum(at, 2 * (side - 1) - at)

    def fresh(self, index: int) -> np.ndarray:
        """Return the positions of a patch that no patch before it covers; those it owns as published.

        Returns:
            ``(P, Q)`` bool.
        """
        row_in = self._covered(index, axis=0)  # (index, P)
        column_in = self._covered(index, axis=1)  # (index, Q)
        owned = np.ones(self.patch, dtype=np.bool_)
        for other in np.flatnonzero(row_in.any(axis=1) & column_in.any(axis=1)):
            owned[np.ix_(row_in[other], column_in[other])] = False
        return owned

    def shares(self, index: int, band: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of a patch at each of its positions, and where it is the first with a weight.

        A position belongs to the patch in which it lies deepest; patches in which it lies less deep by up to
        ``band`` share it, the less the shallower.

        Args:
            index: Number of the patch.
            band: Width of the transition between patches in latents.

        Returns:
            Weights, which add up to 1 over the patches, and the mask, ``(P, Q)`` float32 and bool.
        """
        own = self._depths(np.array([index]), index)[0]
        apart = np.abs(self.origins - self.origins[index])
        for axis in (0, 1):
            if self.wraps[axis]:
                apart[:, axis] = np.minimum(apart[:, axis], self.size[axis] - apart[:, axis])
        near = np.flatnonzero((apart < self.patch).all(axis=1))
        depths = self._depths(near, index)
        weights = np.maximum(depths - (depths.max(axis=0) - band - 1), 0) * (depths >= 0)
        mine = np.maximum(own - (depths.max(axis=0) - band - 1), 0)
        is_first = (mine > 0) & ~(weights[near < index] > 0).any(axis=0)
        return (mine / weights.sum(axis=0)).astype(np.float32), is_first

    def _depths(self, patches: np.ndarray, index: int) -> np.ndarray:
        """Return how deep the positions of a patch lie in some patches, ``(n, P, Q)``; negative outside."""
        down, right = (self._axis_depths(patches, index, axis=axis) for axis in (0, 1))
        return np.minimum(down[:, :, None], right[:, None, :])

    def _axis_depths(self, patches: np.ndarray, index: int, *, axis: int) -> np.ndarray:
        side, length = self.size[axis], self.patch[axis]
        if length == side:  # one patch, which has no border inside
            return np.full((len(patches), length), length, dtype=np.int64)
        at = np.arange(length) + (self.origins[index, axis] - self.origins[patches, axis])[:, None]
        if self.wraps[axis]:
            at = at % side
        return np.minimum(at, length - 1 - at)

    def _covered(self, index: int, *, axis: int) -> np.ndarray:
        """Return which rows or columns of a patch each patch before it covers, ``(index, P)`` bool."""
        side = self.patch[axis]
        apart = self.origins[:index, axis] - self.origins[index, axis]
        if self.wraps[axis]:
            return (np.arange(side) - apart[:, None]) % self.size[axis] < side
        apart = apart[:, None]
        at = np.arange(side)
        return (at >= apart) & (at < apart + side)


def patch_side(side: int, config: JobConfig) -> int:
    """Return the side of patches along a side of the canvas: that of the model, or the largest that fits.

    Raises:
        ValueError: If the canvas is smaller than ``patch_multiple``.
    """
    if side >= config.patch:
        return config.patch
    fitting = side // config.patch_multiple * config.patch_multiple
    if fitting < 1:
        raise ValueError(
            f"the canvas must be at least {config.patch_multiple} latents wide and high, got a side of {side}"
        )
    return fitting


def make_plan(config: JobConfig, height: int, width: int, step: int, *, stage: int = 0) -> PatchPlan:
    """Lay out one step.

    Args:
        config: Kind of plan, patch side, wrapping and seed.
        height: Height of the canvas in latents.
        width: Width of the canvas in latents.
        step: Number of the step; each has a plan of its own.
        stage: Number of the stage; each has plans of its own.

    Returns:
        A plan that depends on the arguments only; it covers the canvas.

    Example:
        >>> len(make_plan(JobConfig(patch=8, plan="grid"), 16, 24, 0))
        6

    Source: Pixelsmith, arXiv 2406.07251, Sec. 3 (random patches, after DiffInfinite); the distribution of the
        cover without overhang is that of its code, the rest is ours.
    """
    size = (height, width)
    patch = (patch_side(height, config), patch_side(width, config))
    stream = Stream(config.seed, Use.PATCHES, stage, (step, 0))
    reach = _reach(config, size, patch)
    draw = _draw_cover if config.plan == "cover" else _draw_grid
    # reaching over the border costs patches, most where few fit; choosing among covers saves them
    draws = _DRAWS if config.plan == "cover" and any(reach) else 1
    origins = min((draw(config, size, patch, stream, reach) for _ in range(draws)), key=len)
    coins = Stream(config.seed, Use.COINS, stage, (step, 0)).coins(2 * len(origins)).reshape(-1, 2)
    return PatchPlan(size, patch, config.wraps, origins, coins)


def estimate_calls(config: JobConfig, height: int, width: int, num_steps: int, *, samples: int = 4) -> int:
    """Return how many patches a stage will take; exact for ``"grid"``, a mean over some steps otherwise.

    The cover of a very large canvas is extrapolated from a part of it, by area.
    """
    drawn = min(num_steps, 1 if config.plan == "grid" else samples)
    counts = [_count(config, (height, width), step) for step in range(drawn)]
    return round(sum(counts) / drawn * num_steps)


def _count(config: JobConfig, size: tuple[int, int], step: int) -> float:
    """Count the patches of a step; on a very large canvas without laying them out."""
    patch = patch_side(size[0], config), patch_side(size[1], config)
    if config.plan == "cover":
        height, width = (min(side, _SIDE * length) for side, length in zip(size, patch, strict=True))
        return len(make_plan(config, height, width, step)) * (size[0] / height) * (size[1] / width)
    stream = Stream(config.seed, Use.PATCHES, 0, (step, 0))
    rows, columns = _grid_axes(config, size, patch, stream, _reach(config, size, patch))
    return len(rows) * len(columns)


def _reach(config: JobConfig, size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Return how far patches reach over the borders along each axis; nothing where one patch spans it."""
    rows, columns = (
        0 if wraps or length == side or config.plan == "grid" else config.overhang_of(length)
        for side, length, wraps in zip(size, patch, config.wraps, strict=True)
    )
    return rows, columns


def _rim(patch: int, reach: int) -> int:
    """Return how many outer rows of a patch must not be the only ones over a position.

    The outermost outputs of a network are its worst. Without overhang nothing else may lie over the border.
    """
    return max(1, patch // 128) if reach else 0


def _draw_cover(
    config: JobConfig,
    size: tuple[int, int],
    patch: tuple[int, int],
    stream: Stream,
    reach: tuple[int, int],
) -> np.ndarray:
    """Draw a position among those still open, centre a patch on it as far as the borders allow, repeat.

    Each patch is one uniform draw from all open positions. Counts per cell make it cheap: a cell is drawn
    by its share, then a position in it, and only the cells under the patch are counted again.
    """
    height, width = size
    is_open = np.ones(size, dtype=np.bool_)
    rows, columns = -(-height // _CELL), -(-width // _CELL)
    counts = np.zeros((rows, columns), dtype=np.int64)
    _recount(is_open, counts, range(rows), range(columns))
    origins: list[tuple[int, int]] = []
    rims = [_rim(length, out) for length, out in zip(patch, reach, strict=True)]
    total = height * width
    while total:
        drawn = stream.below(total)
        sums = np.cumsum(counts)
        cell = int(np.searchsorted(sums, drawn, side="right"))
        top, left = cell // columns * _CELL, cell % columns * _CELL
        block = is_open[top : top + _CELL, left : left + _CELL]
        place = int(np.flatnonzero(block)[drawn - (sums[cell] - counts.flat[cell])])
        centre = (top + place // block.shape[1], left + place % block.shape[1])
        origin = tuple(
            centre[axis] - patch[axis] // 2
            if config.wraps[axis]
            else _keep(
                centre[axis] - patch[axis] // 2, size[axis] - patch[axis], rims[axis], reach[axis], stream
            )
            for axis in (0, 1)
        )
        origins.append((origin[0] % height if config.wraps[0] else origin[0],
                        origin[1] % width if config.wraps[1] else origin[1]))  # fmt: skip
        covered = [_covered_part(at, patch[axis], size[axis], rims[axis], wraps=config.wraps[axis])
                   for axis, at in enumerate(origins[-1])]  # fmt: skip
        for r in covered[0]:
            for c in covered[1]:
                is_open[r, c] = False
                touched = (
                    range(r.start // _CELL, (r.stop - 1) // _CELL + 1),
                    range(c.start // _CELL, (c.stop - 1) // _CELL + 1),
                )
                total -= _recount(is_open, counts, *touched)
    return np.array(origins, dtype=np.int64)


def _keep(at: int, last: int, rim: int, reach: int, stream: Stream) -> int:
    """Keep a patch on the canvas: pushed back from beyond a border, it reaches over it by a random share.

    Were the share always the same, all patches of a border would end at the same place in every step.
    """
    if at < 0:
        return -rim - stream.below(reach - rim + 1) if reach else 0
    if at > last:
        return last + rim + stream.below(reach - rim + 1) if reach else last
    return at


def _covered_part(at: int, length: int, side: int, rim: int, *, wraps: bool) -> list[slice]:
    """Return the positions of an axis that a patch covers."""
    if wraps:
        return [part for _, part in pieces(at, length, side)]
    return [slice(max(0, at + rim), min(side, at + length - rim))]


def _recount(is_open: np.ndarray, counts: np.ndarray, rows: range, columns: range) -> int:
    """Count the open positions of some cells again; return how many fewer there are."""
    before = after = 0
    for r in rows:
        for c in columns:
            before += int(counts[r, c])
            block = is_open[r * _CELL : (r + 1) * _CELL, c * _CELL : (c + 1) * _CELL]
            counts[r, c] = np.count_nonzero(block)
            after += int(counts[r, c])
    return before - after


def _draw_grid(
    config: JobConfig,
    size: tuple[int, int],
    patch: tuple[int, int],
    stream: Stream,
    reach: tuple[int, int],
) -> np.ndarray:
    """Lay a grid, at a random offset for ``"jitter"``, and number its patches at random."""
    rows, columns = _grid_axes(config, size, patch, stream, reach)
    origins = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    return origins[stream.order(len(origins))]


def _grid_axes(
    config: JobConfig,
    size: tuple[int, int],
    patch: tuple[int, int],
    stream: Stream,
    reach: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first rows and the first columns of the patches of a grid."""
    is_moving = config.plan == "jitter"
    rows, columns = (
        _grid_axis(
            size[axis], patch[axis], config.overlap, config.wraps[axis], is_moving, stream, reach[axis]
        )
        for axis in (0, 1)
    )
    return rows, columns


def _grid_axis(
    side: int, patch: int, overlap: int, is_wrapped: bool, is_moving: bool, stream: Stream, reach: int
) -> np.ndarray:
    """Return the first positions of the patches along an axis."""
    # patches of a canvas smaller than that of the model may be smaller than the overlap
    pitch = patch - overlap if overlap < patch else patch
    if is_wrapped:
        count = -(-side // pitch) if side > patch else 1
        offset = stream.below(side) if is_moving else 0
        return np.unique((offset + np.arange(count) * side // count) % side)
    last = side - patch
    if is_moving:
        # one patch more than fits, the outer ones pushed back
        offset = stream.below(pitch)
        starts = np.arange(offset - pitch, last + pitch, pitch)
        out = [stream.below(reach + 1) for _ in range(2)] if reach else (0, 0)
        return np.unique(np.clip(starts, -out[0], last + out[1]))
    count = -(-last // pitch) + 1
    return np.unique(np.arange(count) * last // max(1, count - 1))
