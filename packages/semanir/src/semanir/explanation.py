# SPDX-License-Identifier: Apache-2.0
"""Which parts of a window a pixel attends to: the key-semantic dictionaries of its tokens, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common_kernels import KNNDictionary
from numpy.typing import NDArray
from torch import Tensor, nn

from semanir.model import SemanIR
from semanir.modules.blocks import Stage

_LARGEST_SIDE = 512  # pixels around the pixel that the network sees: windows further off do not matter to it


@dataclass(frozen=True, slots=True)
class Listing:
    """Keys of the token that holds a pixel, in one stage.

    Tokens that the pixel's may not list, and those of the padding beyond the image, are left out.

    Attributes:
        stage: Number of the stage, from 1.
        shift: Roll of its windows in tokens.
        token_size: Side of a token in pixels of the image.
        query: Corner of the pixel's token, ``(x, y)`` in pixels of the image.
        keys: Corners of the tokens of its window, ``(N, 2)``, x and y in pixels of the image.
        ranks: For each of them the least number of keys, among ``ks``, with which it is listed, ``(N,)``.
        ks: Numbers of keys, ascending; the last one lists all.
    """

    stage: int
    shift: int
    token_size: float
    query: tuple[float, float]
    keys: NDArray[np.float64]
    ranks: NDArray[np.int64]
    ks: tuple[int, ...]

    def listed(self, k: int) -> NDArray[np.float64]:
        """Return the corners of the tokens that are listed with ``k`` keys, ``(K, 2)``.

        Raises:
            ValueError: If ``k`` is none of ``ks``.
        """
        if k not in self.ks:
            raise ValueError(f"k must be one of {self.ks}, got {k}")
        return self.keys[self.ranks <= k]


def explain(model: SemanIR, image: Tensor, at: tuple[int, int], ks: Sequence[int] = ()) -> list[Listing]:
    """List for every stage the tokens that the token of a pixel attends to.

    Args:
        model: Network, in evaluation mode.
        image: ``(C, H, W)``, on the device of the network, in [0, 1].
        at: Pixel, x and y.
        ks: Numbers of keys beside the powers of two, all tokens of a window, and that of the network.

    Returns:
        One listing per stage, or two where its layers have windows of two kinds.

    Raises:
        ValueError: If the pixel lies outside the image, a number of keys is below 1, or channels do not fit.

    Source: SemanIR, arXiv 2405.20008, the figures of activated tokens.
    """
    H, W = image.shape[-2:]
    if not (0 <= at[0] < W and 0 <= at[1] < H):
        raise ValueError(f"the pixel must lie in the image of {W} x {H} pixels, got {at[0]},{at[1]}")
    if any(k < 1 for k in ks):
        raise ValueError(f"k must be at least 1, got {list(ks)}")
    tokens = model.config.window_size**2
    chosen = {2**n for n in range(tokens.bit_length())} | {tokens, model.config.k, *ks}
    every = tuple(sorted(k for k in chosen if k <= tokens))
    left, top = _corner(at, (H, W), model.config.size_multiple)
    part = image[:, top : top + _side(model), left : left + _side(model)]
    listings: list[Listing] = []
    for number, (stage, features) in enumerate(_stage_inputs(model, part), 1):
        grid = model.config.size_multiple
        padded = -(-part.shape[1] // grid) * grid
        view = _View(stage, features, padded / features.shape[-2], (left, top), (H, W))
        listings += [view.listing(number, shift, at, every) for shift in dict.fromkeys(stage.shifts)]
    return listings


def _side(model: SemanIR) -> int:
    grid = model.config.size_multiple
    return grid * -(-_LARGEST_SIDE // grid)


def _corner(at: tuple[int, int], size: tuple[int, int], grid: int) -> tuple[int, int]:
    """Return left and top of the part that is looked at, on the grid of the windows."""
    side = grid * -(-_LARGEST_SIDE // grid)
    place = [max(0, min(at[axis] - side // 2, size[1 - axis] - side)) // grid * grid for axis in (0, 1)]
    return place[0], place[1]


@torch.inference_mode()
def _stage_inputs(model: SemanIR, image: Tensor) -> list[tuple[Stage, Tensor]]:
    """Return the stages and the features from which each builds its dictionary."""
    found: list[tuple[Stage, Tensor]] = []
    handles: list[Any] = []

    def keep(stage: Stage) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found.append((stage, output))

        return hook

    try:
        for stage in model.stages:
            assert isinstance(stage, Stage), "nothing else is in the list"
            handles.append(stage.local.register_forward_hook(keep(stage)))
        model(image[None].to(next(model.parameters()).dtype))
    finally:
        for handle in handles:
            handle.remove()
    return found


@dataclass(frozen=True, slots=True)
class _View:
    """Tokens of a stage, and where they stand in the image."""

    stage: Stage
    features: Tensor
    token_size: float
    corner: tuple[int, int]
    size: tuple[int, int]

    def listing(self, number: int, shift: int, at: tuple[int, int], ks: tuple[int, ...]) -> Listing:
        rows, columns = self.features.shape[-2:]
        M = self.stage.window_size
        token = [int((at[axis] - self.corner[axis]) / self.token_size) for axis in (0, 1)]
        x, y = (token[0] - shift) % columns, (token[1] - shift) % rows
        window, query = (y // M) * (columns // M) + x // M, (y % M) * M + x % M
        ranks: dict[int, int] = {}
        for k in reversed(ks):  # sets grow with k: the smallest that lists a token is the last to say so
            dictionary = self.stage.build_dictionary(self.features, shift, k)
            ranks |= dict.fromkeys(_row(dictionary, window, query), k)
        first = (y // M * M, x // M * M)
        keys = np.array([self._place(index, first, shift) for index in ranks]).reshape(-1, 2)
        inside = (keys[:, 0] < self.size[1]) & (keys[:, 1] < self.size[0])
        return Listing(
            stage=number,
            shift=shift,
            token_size=self.token_size,
            query=(self._pixel(token[0], 0), self._pixel(token[1], 1)),
            keys=keys[inside],
            ranks=np.array(list(ranks.values()), dtype=np.int64)[inside],
            ks=ks,
        )

    def _place(self, index: int, first: tuple[int, int], shift: int) -> tuple[float, float]:
        """Return the corner of a token, by its number in the window at row and column ``first``."""
        rows, columns = self.features.shape[-2:]
        row, column = divmod(index, self.stage.window_size)
        x, y = (first[1] + column + shift) % columns, (first[0] + row + shift) % rows
        return self._pixel(x, 0), self._pixel(y, 1)

    def _pixel(self, token: int, axis: int) -> float:
        return token * self.token_size + self.corner[axis]


def _row(dictionary: KNNDictionary, window: int, query: int) -> list[int]:
    return [index for index in dictionary.index[window, query].tolist() if index >= 0]
