# SPDX-License-Identifier: Apache-2.0
"""Random numbers by key: the values of a stream depend on its key only.

Only the raw words of numpy's Philox are used, whose values are fixed; numpy's distributions
(normals, permutations) may change between its versions.
"""

from __future__ import annotations

import enum

import numpy as np

__all__ = ["Stream", "Use"]


class Use(enum.IntEnum):
    """Use of a stream; streams of different uses share no words."""

    NOISE = 1
    PATCHES = 2
    COINS = 3


class Stream:
    """The stream of one key.

    Args:
        seed: Random seed, in [0, 2**64).
        use: Use of the stream.
        stage: Stage of the job.
        place: Pair of numbers, such as row and column, or step and 0.
    """

    def __init__(self, seed: int, use: Use, stage: int, place: tuple[int, int]) -> None:
        key = np.array([seed, use + 16 * stage], dtype=np.uint64)
        self._bits = np.random.Philox(key=key, counter=np.array([0, 0, *place], dtype=np.uint64))

    def words(self, count: int) -> np.ndarray:
        """Return the next ``count`` words, uint64."""
        return self._bits.random_raw(count)

    def below(self, limit: int) -> int:
        """Return a uniform number in [0, limit)."""
        return (int(self._bits.random_raw()) * limit) >> 64

    def coins(self, count: int) -> np.ndarray:
        """Return ``count`` fair coins, uint8."""
        return (self.words(count) >> np.uint64(63)).astype(np.uint8)

    def order(self, count: int) -> np.ndarray:
        """Return a random permutation of ``range(count)``."""
        return np.argsort(self.words(count), kind="stable")

    def normals(self, count: int) -> np.ndarray:
        """Return ``count`` standard normals, float32, by the Box-Muller transform in float64."""
        words = self.words((count + 1) // 2)
        # the half keeps both inside (0, 1), so the logarithm is finite
        first = ((words >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32
        second = ((words & np.uint64(0xFFFFFFFF)).astype(np.float64) + 0.5) * 2.0**-32
        radius, angle = np.sqrt(-2 * np.log(first)), 2 * np.pi * second
        pairs = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
        return pairs.astype(np.float32).reshape(-1)[:count]
