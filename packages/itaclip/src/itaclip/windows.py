# SPDX-License-Identifier: Apache-2.0
"""Resizing, overlapping windows, and merging of their patch maps into one map of any size."""

from __future__ import annotations

import torch
from common_kernels.tiling import TilePlan, axis_weights, plan_tiles
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]


def resized_shape(height: int, width: int, *, short: int, long: int, least: int = 1) -> tuple[int, int]:
    """Return height and width after resizing, the ratio kept.

    Args:
        height: Pixels, at least 1.
        width: Pixels, at least 1.
        short: Short side in pixels; 0 keeps the size, up to ``long``.
        long: Upper limit of the long side, in pixels.
        least: Lower limit of both sides in pixels, at the cost of the ratio; one patch of the tower.

    Source: arXiv 2411.12044, published settings: factor ``min(long / longest, short / shortest)``, sides
        rounded half up.
    """
    # the order of the products keeps whole results whole
    wanted = short or min(height, width)
    if long * min(height, width) < wanted * max(height, width):
        scale, over = long, max(height, width)
    else:
        scale, over = wanted, min(height, width)
    return max(least, int(height * scale / over + 0.5)), max(least, int(width * scale / over + 0.5))


def plan_windows(height: int, width: int, *, crop: int, stride: int) -> TilePlan:
    """Plan square windows over an image; the last of a row ends at its edge.

    Args:
        height: Height of the resized image, in pixels.
        width: Width of the resized image, in pixels.
        crop: Side of the windows; they shrink to the image where it is smaller. 0 for one window.
        stride: Pixels between neighbours.
    """
    if crop == 0:
        return plan_tiles(height, width, tile=(height, width))
    return plan_tiles(height, width, tile=crop, overlap=crop - stride)


class WindowMerger:
    """Merges the patch maps of all windows into a map of the image, without a map in pixels per window.

    Each window's scores go bilinearly to the window's pixels, overlapping windows are averaged, and the
    result goes bilinearly to the size of the output. All three are linear and act on rows and columns apart,
    so they are one matrix for the rows and one for the columns. An image taken as a whole is no window: its
    patches go to the size of the output in one step.

    Args:
        plan: The windows.
        grid: Patches of a window along height and width.
        size: Height and width of the output.
        direct: Whether the image is taken as a whole; the plan then has one window.
        device: Device of the matrices.

    Raises:
        ValueError: If an image of several windows is to be taken as a whole.

    Source: arXiv 2411.12044, published code, for windows and for whole images.
    """

    def __init__(
        self,
        plan: TilePlan,
        grid: Grid,
        size: tuple[int, int],
        *,
        direct: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if direct and len(plan) > 1:
            raise ValueError(f"direct is for one window, got {len(plan)}")
        if direct:
            rows, columns = (_linear(patches, side) for patches, side in zip(grid, size, strict=True))
        else:
            rows = _axis_matrix(plan.rows, plan.height, grid[0], size[0])
            columns = _axis_matrix(plan.columns, plan.width, grid[1], size[1])
        self.rows, self.columns = rows.to(device, torch.float32), columns.to(device, torch.float32)

    def merge(self, scores: Tensor, *, top: int = 0, bottom: int | None = None) -> Tensor:
        """Return the map of the output's size, or some of its rows.

        Args:
            scores: ``(channels, rows * height, columns * width)``, the windows beside and below each other.
            top: First row.
            bottom: End of the rows; the last one if ``None``.

        Returns:
            ``(channels, bottom - top, W)``.
        """
        across = scores @ self.columns.T  # (channels, rows * height, W)
        return self.rows[top:bottom] @ across


def resize_rows(image: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Return some rows of an image resized bilinearly with half-pixel centres.

    Args:
        image: ``(C, h, w)``.
        size: Height and width that the whole would have.
        top: First row.
        bottom: End of the rows.

    Returns:
        ``(C, bottom - top, size[1])``.
    """
    height = image.shape[-2]
    centres = (torch.arange(top, bottom, device=image.device) + 0.5) * (height / size[0]) - 0.5
    places = centres.clamp(min=0, max=height - 1)
    above = places.floor().long()
    below = (above + 1).clamp(max=height - 1)
    share = (places - above).to(image.dtype)[:, None]
    rows = torch.lerp(image[:, above], image[:, below], share)  # (C, bottom - top, w)
    return F.interpolate(rows[None], size=(bottom - top, size[1]), mode="bilinear", align_corners=False)[0]


def _axis_matrix(spans: tuple[tuple[int, int], ...], length: int, patches: int, size: int) -> Tensor:
    """Return ``(size, spans * patches)``: upsample each span, average where they overlap, resize; fp64."""
    weights = axis_weights(spans, length, "uniform")
    merged = torch.zeros(length, len(spans), patches, dtype=torch.float64)
    for number, ((start, stop), weight) in enumerate(zip(spans, weights, strict=True)):
        merged[start:stop, number] = _linear(patches, stop - start) * weight[:, None]
    matrix = merged.flatten(1)  # (length, spans * patches)
    return matrix if size == length else _linear(length, size) @ matrix


def _linear(source: int, target: int) -> Tensor:
    """Return the matrix ``(target, source)`` of linear resizing with half-pixel centres."""
    eye = torch.eye(source, dtype=torch.float64)[None]
    return F.interpolate(eye, size=target, mode="linear", align_corners=False)[0].T
