# SPDX-License-Identifier: Apache-2.0
"""What can be chosen at a call; imports no torch, so that command lines read it at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PhotographName = Literal["chelsea", "astronaut", "coffee", "rocket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """How an image is restored.

    Attributes:
        strength: Share of the effect from 0, the input, to 1, the output of the network; below 1 only for
            networks that do not enlarge.
        k: Keys per token; by default the number of the network.
        self_ensemble: Average over the eight flips and turns: a little better, eight times slower.
        tile: Side of the tiles in pixels; auto takes the largest up to 1024 that fit into half of the free
            memory, and on the CPU into 1 GiB, or the whole image if it is no larger; None, in Python only,
            never tiles.
        overlap: Least number of pixels that neighbouring tiles share; by default twice the grid of the
            network.
    """

    strength: float = 1.0
    k: int | None = None
    self_ensemble: bool = False
    tile: int | Literal["auto"] | None = "auto"
    overlap: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must lie in [0, 1], got {self.strength}")
        if self.k is not None and self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if isinstance(self.tile, int) and self.tile < 1:
            raise ValueError(f"tile must be at least 1, or 'auto', got {self.tile}")
        if self.overlap is not None and self.overlap < 0:
            raise ValueError(f"overlap must be at least 0, got {self.overlap}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """How a video is restored, besides its frames.

    Attributes:
        temporal: Weight of the previous restored frame, moved along the motion, in [0, 1): less flicker and
            less noise; 0 restores each frame alone.
        crf: Constant rate factor of the MP4, 0 to 51: the lower, the better and larger.
        sound: Copy the sound, if an MP4 can hold it as it is.
    """

    temporal: float = 0.5
    crf: int = 18
    sound: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.temporal < 1:
            raise ValueError(f"temporal must lie in [0, 1), got {self.temporal}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must lie in [0, 51], got {self.crf}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demonstration shows.

    Attributes:
        photograph: Photograph.
        sigma: Standard deviation of the noise, on the scale of [0, 255].
        seed: Random seed of the noise.
    """

    photograph: PhotographName = "chelsea"
    sigma: float = 25.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 100:
            raise ValueError(f"sigma must lie in (0, 100], got {self.sigma}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
