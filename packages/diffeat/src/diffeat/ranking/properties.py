# SPDX-License-Identifier: Apache-2.0
"""The paper's three properties as measures without labels.

The paper judges them by eye; the measures are new. Each is defined so that white noise and a smooth ramp,
whose values are known, lie at its ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from common_kernels.runtime.files import write_json
from torch import Tensor

from diffeat.charts import colour_of, figure, legend, save
from diffeat.names.grammar import ActivationName, Names
from diffeat.options import ExtractionOptions
from diffeat.ranking.sources import ModelSource

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor
    from diffeat.images import ImageLike

# below this side a spectrum or a correlation length has no meaning
_LEAST_SIDE = 4
_MOST_NAMES = 40  # most names below a chart
_HALF_NYQUIST = 0.25  # cycles per cell
_PAIRS = 2000
FIGURES = ("noise_sensitivity", "high_frequency", "locality", "granularity")
_TITLES = ("noise sensitivity", "high-frequency share", "locality", "granularity (share of the side)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """Measurements of one activation; ``None`` if it has too few cells.

    Attributes:
        name: Name of the activation.
        family: Family in the paper's taxonomy.
        noise_sensitivity: See :func:`noise_sensitivity`.
        high_frequency: See :func:`high_frequency_share`.
        locality: See :func:`locality`.
        granularity: See :func:`granularity`.
    """

    name: str
    family: str
    noise_sensitivity: float | None
    high_frequency: float | None
    locality: float | None
    granularity: float | None


@dataclass(frozen=True, slots=True)
class PropertyReport:
    """Measurements of a model's activations.

    Attributes:
        rows: Measurements in execution order.
        settings: Options of the measurement, as JSON values.
    """

    rows: tuple[Properties, ...]
    settings: dict[str, Any]

    def to_json(self, path: str | Path) -> None:
        """Write everything."""
        write_json(path, asdict(self))

    def chart(self, path: str | Path) -> None:
        """Draw the four figures over the execution order, a colour per family; the up stage is shaded.

        Up to forty activations have their names below.

        Args:
            path: PNG, PDF or SVG.

        Raises:
            ImportError: If matplotlib is missing.
        """
        sheet = figure((max(8.0, 1.5 + 0.035 * len(self.rows)), 9.0))
        panels = sheet.subplots(len(FIGURES), 1, sharex=True)
        stages = [ActivationName.parse(row.name).stage for row in self.rows]
        for axes, key, title in zip(panels, FIGURES, _TITLES, strict=True):
            shown = [(i, getattr(row, key), row.family) for i, row in enumerate(self.rows)]
            known = [(i, value, family) for i, value, family in shown if value is not None]
            colours = [colour_of(family) for *_, family in known]
            axes.scatter([i for i, *_ in known], [value for _, value, _ in known], c=colours, s=12)
            axes.set_ylabel(title, fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", linewidth=0.4)
            if "up" in stages:
                last = len(stages) - 1 - stages[::-1].index("up")
                axes.axvspan(stages.index("up") - 0.5, last + 0.5, color="#eef3f8", zorder=0)
        if len(self.rows) <= _MOST_NAMES:
            panels[-1].set_xticks(
                range(len(self.rows)), [row.name for row in self.rows], fontsize=7, rotation=90
            )
        panels[-1].set_xlabel("activations in execution order; the up stage is shaded")
        legend(panels[0], [row.family for row in self.rows])
        save(sheet, path)


def noise_sensitivity(one: Tensor, other: Tensor) -> float | None:
    """Return the change of an activation with the noise: 1 minus the mean correlation over two seeds.

    Args:
        one: ``(B, C, h, w)`` with one noise.
        other: The same images with another.

    Returns:
        0 for no change, about 1 for noise alone, up to 2. Each channel of each image
        is correlated over its cells; constant channels are ignored.

    Examples:
        >>> x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> round(noise_sensitivity(x, 3 * x + 1), 6)
        0.0
    """
    a, b = (value.flatten(2).double() for value in (one, other))
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    live = norms > 1e-12
    if a.shape[-1] < 2 or not bool(live.any()):
        return None
    return 1 - float(((a * b).sum(-1)[live] / norms[live]).mean())


def high_frequency_share(values: Tensor) -> float | None:
    """Return the share of the energy above half the Nyquist frequency, without the means of channels.

    Args:
        values: ``(B, C, h, w)``.

    Returns:
        Between 0 and 1; white noise has 1 - pi / 16, about 0.80, as frequencies are measured by their radius.
    """
    if min(values.shape[-2:]) < _LEAST_SIDE:
        return None
    centred = values.double() - values.double().mean((-2, -1), keepdim=True)
    energy = torch.fft.fft2(centred).abs().square().sum(dim=1)  # (B, h, w)
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in values.shape[-2:])
    high = torch.hypot(rows[:, None], columns[None, :]) > _HALF_NYQUIST
    total = energy.sum((-2, -1))
    live = total > 0
    if not bool(live.any()):
        return None
    return float(((energy * high).sum((-2, -1))[live] / total[live]).mean())


def locality(values: Tensor, *, pairs: int = _PAIRS, seed: int = 0) -> float | None:
    """Return how much an activation encodes position: rank correlation of feature and pixel distance.

    Args:
        values: ``(B, C, h, w)``.
        pairs: Number of pairs of cells drawn from each image.
        seed: Random seed of the pairs.

    Returns:
        Spearman's coefficient, mean over images: about 1 for a map of coordinates, 0 for white noise.
    """
    from scipy.stats import spearmanr

    height, width = values.shape[-2:]
    if min(height, width) < _LEAST_SIDE:
        return None
    rng = np.random.default_rng(seed)
    first = torch.from_numpy(rng.integers(0, height * width, pairs))
    second = (first + torch.from_numpy(rng.integers(1, height * width, pairs))) % (height * width)
    rows, columns = first // width - second // width, first % width - second % width
    apart = torch.hypot(rows / height, columns / width).numpy()
    found: list[float] = []
    for image in values.flatten(2).float():
        differ = torch.linalg.vector_norm(image[:, first] - image[:, second], dim=0).numpy()
        if differ.max() > differ.min():
            found.append(float(cast("Any", spearmanr)(differ, apart).statistic))
    return fmean(found) if found else None


def granularity(values: Tensor) -> float | None:
    """Return the size of structures in an activation: the lag of half its autocorrelation.

    Args:
        values: ``(B, C, h, w)``.

    Returns:
        Size in shares of the shorter side, comparable across resolutions; 0.5 if it never falls that far.
    """
    height, width = values.shape[-2:]
    if min(height, width) < _LEAST_SIDE:
        return None
    centred = values.double() - values.double().mean((-2, -1), keepdim=True)
    size = (2 * height, 2 * width)
    # padded to twice the size against wrap-around
    spectrum = torch.fft.rfft2(centred, s=size).abs().square().sum(dim=1)
    overlaps = torch.fft.irfft2(
        torch.fft.rfft2(torch.ones(height, width).double(), s=size).abs().square(), s=size
    )
    correlation = torch.fft.irfft2(spectrum, s=size)[:, :height, :width] / overlaps[:height, :width]
    start = correlation[:, :1, :1]
    live = start.flatten() > 0
    if not bool(live.any()):
        return None
    mean = (correlation / start)[live].mean(0)
    lags = torch.hypot(torch.arange(float(height))[:, None], torch.arange(float(width)))
    side = min(height, width)
    profile = [float(mean[(lags - lag).abs() <= 0.5].mean()) for lag in range(side // 2 + 1)]
    for lag in range(1, len(profile)):
        if profile[lag] <= 0.5:
            rest = (profile[lag - 1] - 0.5) / (profile[lag - 1] - profile[lag])
            return (lag - 1 + rest) / side
    return 0.5


def measure_properties(
    extractor: FeatureExtractor,
    images: Sequence[ImageLike],
    names: Names = "*",
    options: ExtractionOptions | None = None,
    *,
    batch_size: int = 8,
    names_per_pass: int = 64,
    on_name: Callable[[int, int], None] | None = None,
) -> PropertyReport:
    """Measure activations on unlabelled images, with two noises each.

    Args:
        extractor: The model.
        images: Images; a few are enough, as figures are means over them.
        names: Names, globs or presets; maps and text tokens are skipped.
        options: Options of the extraction, with a single timestep; the second noise has the next seed.
        batch_size: Images per pass.
        names_per_pass: Activations held at a time.
        on_name: Called with activations done and all of them.

    Raises:
        LookupError: If a pattern matches nothing.
    """
    first = options or ExtractionOptions()
    second = replace(first, seed=first.seed + 1)
    sources = [
        ModelSource(extractor, images, options=each, batch_size=batch_size) for each in (first, second)
    ]
    candidates = sources[0].candidates(names)
    families = {each.name: each.family for each in candidates}
    rows: list[Properties] = []
    ordered = list(families)
    for start in range(0, len(ordered), names_per_pass):
        part = ordered[start : start + names_per_pass]
        found = _measured(sources[0].batches(part), sources[1].batches(part), part)
        rows.extend(Properties(name=name, family=families[name], **found[name]) for name in part)
        if on_name is not None:
            on_name(len(rows), len(ordered))
    settings = {"model": extractor.name, **first.to_dict(), "images": len(images)}
    return PropertyReport(tuple(rows), settings)


def _measured(
    ones: Iterator[dict[str, Tensor]], others: Iterator[dict[str, Tensor]], names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Means of all figures over the images."""
    found: dict[str, dict[str, list[float]]] = {name: {key: [] for key in FIGURES} for name in names}
    for one, other in zip(ones, others, strict=True):
        for name in names:
            for value, again in zip(one[name].float().split(1), other[name].float().split(1), strict=True):
                figures = (
                    noise_sensitivity(value, again),
                    high_frequency_share(value),
                    locality(value),
                    granularity(value),
                )
                for key, each in zip(FIGURES, figures, strict=True):
                    if each is not None and math.isfinite(each):
                        found[name][key].append(each)
    return {
        name: {key: fmean(values) if values else None for key, values in each.items()}
        for name, each in found.items()
    }
