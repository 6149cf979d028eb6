# SPDX-License-Identifier: Apache-2.0
"""Points of one image found in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# similarities that exist at a time: 64 MiB in fp32
_CHUNK_ELEMENTS = 1 << 24
# there and back again, a match of a grid may miss its start by so much of a side, or by a cell
_ROUND_TRIP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftArgmax:
    """Refinement of the most similar cell: the mean place of the cells around it, weighted by similarity.

    Attributes:
        window: Cells per side of the square around the most similar cell; odd.
        temperature: Divisor of the similarities before the softmax; 0 in the limit is the cell itself.

    Source: arXiv 2311.17034 (soft-argmax in a window); the default temperature is ours.
    """

    window: int = 5
    temperature: float = 0.05

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"window must be an odd number of cells, got {self.window}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Points of one image found in another.

    Attributes:
        source: Points looked for, ``(N, 2)``, ``(x, y)`` in shares of width and height.
        target: Points found, likewise.
        similarities: Cosines, ``(N,)``.
        is_right: Whether each was found, ``(N,)``; ``None`` while the truth is not known.
    """

    source: Tensor
    target: Tensor
    similarities: Tensor
    is_right: Tensor | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def pck(self) -> float:
        """Share of points found.

        Raises:
            ValueError: If the truth is not known.
        """
        if self.is_right is None:
            raise ValueError("matches must be judged before they have a PCK")
        return float(self.is_right.double().mean())

    def judged(self, truth: Tensor, size: tuple[int, int], threshold: float) -> Matches:
        """Say which points are found.

        Args:
            truth: True places, ``(N, 2)`` in shares.
            size: Width and height of the target in pixels.
            threshold: Largest distance of a hit, in larger sides of the target.
        """
        sides = torch.tensor(size)
        return replace(
            self, is_right=hits(self.target * sides, truth * sides, threshold * float(sides.max()))
        )

    def to_list(self, source_size: tuple[int, int], target_size: tuple[int, int]) -> list[dict[str, Any]]:
        """Plain values of each match, points in pixels.

        Args:
            source_size: Width and height of the source in pixels.
            target_size: Width and height of the target in pixels.
        """
        starts = (self.source * torch.tensor(source_size)).tolist()
        ends = (self.target * torch.tensor(target_size)).tolist()
        right = [None] * len(self) if self.is_right is None else self.is_right.tolist()
        return [
            {
                "source": [round(value, 2) for value in start],
                "target": [round(value, 2) for value in end],
                "similarity": round(similarity, 4),
                **({} if is_right is None else {"right": is_right}),
            }
            for start, end, similarity, is_right in zip(
                starts, ends, self.similarities.tolist(), right, strict=True
            )
        ]


def find_points(source: Tensor, target: Tensor, points: Tensor, soft: SoftArgmax | None = None) -> Matches:
    """Find points of one image in another by :func:`nearest`, whose arguments it takes."""
    return Matches(points, *nearest(source, target, points, soft=soft))


def find_points_flipped(
    source: Tensor, flipped: Tensor, target: Tensor, points: Tensor, soft: SoftArgmax | None = None
) -> Matches:
    """Find points in the way round, as it is or mirrored, in which the source is more similar to the target.

    Features confuse left and right: of an object that looks the other way, a mirrored source finds the points
    of the right side.

    Args:
        source: Features ``(C, h, w)`` of the image with the points.
        flipped: Features of the same image mirrored left to right.
        target: Features ``(C, h', w')`` of the other.
        points: ``(N, 2)`` in shares of the source as it is.
        soft: Refinement of the cells found.

    Source: arXiv 2311.17034, which tries poses and takes the nearest; here by the mean similarity
        of the points.
    """
    plain = find_points(source, target, points, soft)
    mirrored = points * points.new_tensor([-1.0, 1.0]) + points.new_tensor([1.0, 0.0])
    other = find_points(flipped, target, mirrored, soft)
    is_other = len(points) > 0 and bool(other.similarities.mean() > plain.similarities.mean())
    return replace(other, source=points) if is_other else plain


def find_mutual(source: Tensor, target: Tensor, grid: int = 10, soft: SoftArgmax | None = None) -> Matches:
    """Match a grid of points, and keep those that come back to where they started.

    Args:
        source: Features ``(C, h, w)`` of the one image.
        target: Features ``(C, h', w')`` of the other.
        grid: Rows and columns of the grid.
        soft: Refinement of the cells found.
    """
    steps = (torch.arange(grid) + 0.5) / grid
    points = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1)
    found, similarities = nearest(source, target, points, soft=soft)
    back, _ = nearest(target, source, found)
    keep = (back - points).norm(dim=1) <= max(_ROUND_TRIP, 1 / min(source.shape[1:]))
    return Matches(points[keep], found[keep], similarities[keep])


def sample(values: Tensor, points: Tensor) -> Tensor:
    """Read features at points, bilinearly; the same as enlarging them to an image and taking its pixels.

    Args:
        values: ``(B, C, h, w)``.
        points: ``(B, N, 2)``, ``(x, y)`` in shares of the image's width and height, in [0, 1]. The centre of
            pixel ``i`` of ``n`` is ``(i + 0.5) / n``.

    Returns:
        ``(B, N, C)`` in the dtype of ``values``.

    Examples:
        >>> values = torch.arange(4.0).view(1, 1, 1, 4)
        >>> sample(values, torch.tensor([[[0.375, 0.5], [0.5, 0.5]]])).flatten()
        tensor([1.0000, 1.5000])
    """
    grid = (2 * points - 1)[:, :, None].to(device=values.device, dtype=torch.float32)  # (B, N, 1, 2)
    read = F.grid_sample(values.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return read[..., 0].transpose(1, 2).to(values.dtype)  # (B, N, C)


def nearest(
    source: Tensor, target: Tensor, points: Tensor, *, soft: SoftArgmax | None = None
) -> tuple[Tensor, Tensor]:
    """Find the most similar cell of another image for each point, by cosine.

    Args:
        source: Features ``(C, h, w)`` of the image in which the points are.
        target: Features ``(C, h', w')`` of the other.
        points: ``(N, 2)``, ``(x, y)`` in shares of the image's width and height, in [0, 1].
        soft: Refinement of the cells found; ``None`` takes their centres.

    Returns:
        Places found, centres of cells unless refined, ``(N, 2)`` in shares, and their similarities ``(N,)``
        in [-1, 1].

    Raises:
        ValueError: If channels or the shape of ``points`` do not fit.
    """
    if source.ndim != 3 or target.ndim != 3 or source.shape[0] != target.shape[0]:
        raise ValueError(
            "source and target must be (C, h, w) with the same channels, got "
            f"{tuple(source.shape)} and {tuple(target.shape)}"
        )
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must be (N, 2), got {tuple(points.shape)}")
    wanted = F.normalize(sample(source[None], points[None])[0].float(), dim=-1)  # (N, C)
    cells = F.normalize(target.flatten(1).float(), dim=0)  # (C, h' * w')
    width, height = target.shape[2], target.shape[1]
    step = max(1, _CHUNK_ELEMENTS // cells.shape[1])
    found: list[Tensor] = []
    values: list[Tensor] = []
    for part in wanted.split(step):
        scores = part @ cells  # (n, h' * w')
        best = scores.max(dim=1)
        values.append(best.values)
        if soft is None:
            rows, columns = (best.indices // width).double(), (best.indices % width).double()
        else:
            rows, columns = _soft_places(scores.unflatten(1, (height, width)), best.indices, soft)
        found.append(torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=-1))
    if not found:
        return points.new_zeros(0, 2), points.new_zeros(0)
    return torch.cat(found).to(points), torch.cat(values)


def _soft_places(scores: Tensor, index: Tensor, soft: SoftArgmax) -> tuple[Tensor, Tensor]:
    """Mean rows and columns around the best cells of ``(N, h, w)``; outside the image nothing counts."""
    reach = soft.window // 2
    offsets = torch.arange(-reach, reach + 1, device=scores.device)
    rows = (index // scores.shape[2])[:, None] + offsets  # (N, window)
    columns = (index % scores.shape[2])[:, None] + offsets
    padded = F.pad(scores, (reach, reach, reach, reach), value=float("-inf"))
    number = torch.arange(len(index), device=scores.device)[:, None, None]
    around = padded[number, rows[:, :, None] + reach, columns[:, None, :] + reach].double()
    weights = (around / soft.temperature).flatten(1).softmax(dim=1).view_as(around)
    return (weights.sum(2) * rows).sum(1), (weights.sum(1) * columns).sum(1)


def pixel_patches(images: Sequence[Tensor], *, cell: int = 4, patch: int = 8) -> Tensor:
    """Raw pixels around each cell as features: what every other feature has to beat.

    Args:
        images: ``(3, H, W)`` each, of one size; sides are multiples of ``cell``.
        cell: Pixels of a cell's side.
        patch: Pixels of the side of the patch around it; at least ``cell``, and even if ``cell`` is.

    Returns:
        ``(B, 3 * patch * patch, H / cell, W / cell)``.
    """
    batch = torch.stack(list(images))
    edge = (patch - cell) // 2
    padded = F.pad(batch, (edge, edge, edge, edge), mode="replicate")
    cells = F.unfold(padded, patch, stride=cell)  # (B, 3 * patch * patch, N)
    return cells.unflatten(2, (batch.shape[-2] // cell, batch.shape[-1] // cell))


def similarity_map(source: Tensor, target: Tensor, point: tuple[float, float]) -> Tensor:
    """Cosine similarity of one point of an image to all cells of another, or of itself.

    Args:
        source: Features ``(C, h, w)`` of the image in which the point is.
        target: Features ``(C, h', w')``.
        point: ``(x, y)`` in shares of width and height.

    Returns:
        ``(h', w')`` in [-1, 1].
    """
    vector = sample(source[None], torch.tensor([[point]]))[0, 0].float()
    return F.cosine_similarity(vector[:, None, None], target.float(), dim=0)


def hits(predicted: Tensor, wanted: Tensor, radius: float | Tensor) -> Tensor:
    """Which predictions count as found: those at most ``radius`` away, the radius included.

    Args:
        predicted: ``(N, 2)`` in pixels.
        wanted: ``(N, 2)`` in pixels.
        radius: Largest distance in pixels, one or ``(N,)``.

    Returns:
        ``(N,)``, bool.

    Source: SPair-71k's PCK, arXiv 1908.10543; the rule is ``<=``.
    """
    return torch.linalg.vector_norm((predicted - wanted).double(), dim=-1) <= radius
