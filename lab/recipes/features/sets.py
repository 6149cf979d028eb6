# SPDX-License-Identifier: Apache-2.0
"""Sets of activations that are compared: earlier work's, the paper's, and those chosen here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from diffeat.ranking import Ranking
from diffeat.ranking.report import Ranked

from recipes.features.scenes import Kind

# what earlier work takes of SDXL, at the same places of a U-Net of three levels with two repeats
LEGACY = ("up-level0-upsampler-out", "up-level1-upsampler-out", "up-level2-repeat1-res-out")
# the paper's set for SDXL; its two of ten blocks at the lowest resolution are the only one of this model
PAPER = (
    "up-level0-repeat0-vit-block0-out",
    "up-level1-repeat0-vit-block0-cross-q",
    "up-level1-repeat0-vit-block0-out",
)
LATENT = ("unet-in",)
PIXELS = "pixels"


def generic(rankings: Mapping[Kind, Ranking], channels: int) -> tuple[str, ...]:
    """Take activations by their mean place over several tasks, as long as they fit.

    Args:
        rankings: Ranking of the same activations by task.
        channels: Most channels in all.

    Returns:
        Names, best first. Scores of a task count in its own standard deviations, so that no task outweighs
        another.
    """
    scores: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for ranking in rankings.values():
        means = [row.mean for row in ranking.rows]
        centre, spread = fmean(means), pstdev(means) or 1.0
        for row in ranking.rows:
            scores.setdefault(row.names[0], []).append((row.mean - centre) / spread)
            sizes[row.names[0]] = row.channels
    found: list[str] = []
    for name in sorted(scores, key=lambda name: -fmean(scores[name])):
        if sum(sizes[each] for each in found) + sizes[name] <= channels:
            found.append(name)
    return tuple(found)


def channels_of(ranking: Ranking, names: Sequence[str]) -> int:
    """Channels of a set."""
    sizes = {row.names[0]: row.channels for row in ranking.rows}
    return sum(sizes[name] for name in names)


def row_of(ranking: Ranking, name: str) -> Ranked:
    """The row of one activation."""
    return next(row for row in ranking.rows if row.names == (name,))
