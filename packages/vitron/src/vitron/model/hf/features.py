# SPDX-License-Identifier: Apache-2.0
"""Features of shown frames: how the output of each family's vision tower becomes a map of the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = [
    "FAMILIES",
    "Family",
    "FrameFeatures",
    "TowerPass",
    "family_of",
    "group_by_shape",
    "read_passes",
    "unflatten_patches",
]


@dataclass(frozen=True)
class Family:
    """How a family of vision language models feeds its vision tower.

    Attributes:
        layout: ``square``: one row of the tower's batch is a tile ``(3, H, W)``; ``patches``: all images are
            one sequence of flattened patches, with ``grid_thw``, in the order in which patches are merged.
        whole: Tile that shows the whole image, where an image is cut into tiles: the ``first`` or ``last``.
        videos: Whether videos go through the video processor; otherwise their frames are images.
        joined: Whether images and videos share ``pixel_values``, in the order of the text.
    """

    layout: Literal["square", "patches"] = "square"
    whole: Literal["first", "last"] = "first"
    videos: bool = False
    joined: bool = False


FAMILIES: Mapping[str, Family] = {
    "internvl": Family(whole="last", videos=True, joined=True),
    "idefics3": Family(whole="last"),
    "smolvlm": Family(whole="last"),
    "llava_onevision": Family(videos=True),
    **dict.fromkeys(
        ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"),
        Family(layout="patches", videos=True),
    ),
}
"""Families that differ from the default: one square tile an image, frames of a video as images."""


def family_of(model_type: str) -> Family:
    """Return the family of a model type of transformers; the default if it is not listed."""
    return FAMILIES.get(model_type, Family())


@dataclass
class TowerPass:
    """What the vision tower read and returned in one pass.

    Attributes:
        pixels: ``(N, 3, H, W)``, or flattened patches ``(P, C)``.
        states: ``(N, P, C)`` or ``(P, C)``.
        grid: Frames, rows and columns of patches of each image or video, ``(M, 3)``.
    """

    pixels: Tensor
    states: Tensor
    grid: Tensor | None = None


@dataclass
class FrameFeatures:
    """Features and pixels of the shown frames.

    Attributes:
        maps: Normalised features of each frame, ``(h, w, C)``.
        views: Pixels of each frame as the tower read them, ``(3, H, W)``.
    """

    maps: list[Tensor] = field(default_factory=list[Tensor])
    views: list[Tensor] = field(default_factory=list[Tensor])


def read_passes(passes: Sequence[TowerPass], rows: Tensor, vision: Any, norm: nn.Module) -> FrameFeatures:
    """Return the features of shown frames.

    Args:
        passes: Passes of the tower, in order.
        rows: Row of each frame in the batch of the tower; of towers that read a sequence of patches, its
            position among all frames, those that fill the last patch in time included.
        vision: Configuration of the tower.
        norm: Normalisation of the features.

    Raises:
        ValueError: If the states are not a map of patches: then regions and masks cannot be used.
    """
    found = dict[int, tuple[Tensor, Tensor]]()
    wanted, start = rows.tolist(), 0
    for each in passes:
        if each.grid is None:
            count, read = len(each.pixels), _read_square
        else:
            count, read = int(each.grid[:, 0].sum()) * _temporal(vision), _read_patches
        here = [row for row in wanted if start <= row < start + count]
        if here:
            found |= zip(here, read(each, [row - start for row in here], vision), strict=True)
        start += count
    if missing := sorted(set(wanted) - set(found)):
        raise ValueError(
            f"the vision tower read {start} frames, and frame_rows names {missing[0]}: regions and masks "
            "cannot be used with this model"
        )
    return FrameFeatures(
        _normalise([found[row][0] for row in wanted], norm), [found[row][1] for row in wanted]
    )


def _normalise(maps: list[Tensor], norm: nn.Module) -> list[Tensor]:
    if len({each.shape for each in maps}) == 1:
        return list(norm(torch.stack(maps)).unbind())
    return [norm(each) for each in maps]


def _read_square(each: TowerPass, rows: Sequence[int], vision: Any) -> list[tuple[Tensor, Tensor]]:
    patch = _pair(getattr(vision, "patch_size", None))
    height, width = (side // size for side, size in zip(each.pixels.shape[-2:], patch, strict=True))
    extra = each.states.shape[-2] - height * width
    if each.states.ndim != 3 or extra < 0:
        raise ValueError(
            f"the vision tower returns states {tuple(each.states.shape)} for {height} x {width} patches: "
            "regions and masks cannot be used with this model"
        )
    # class and register tokens come first
    maps = each.states[list(rows), extra:].unflatten(1, (height, width))
    return list(zip(maps, each.pixels[list(rows)], strict=True))


def _read_patches(each: TowerPass, rows: Sequence[int], vision: Any) -> list[tuple[Tensor, Tensor]]:
    assert each.grid is not None
    merge, times = int(vision.spatial_merge_size), _temporal(vision)
    states = _in_merge_order(each.states, each.grid, vision)
    found = list[tuple[Tensor, Tensor]]()
    slices, start = list[tuple[int, int, int]](), 0
    for frames, height, width in each.grid.tolist():
        for _ in range(frames):
            slices.append((start, height, width))
            start += height * width
    for row in rows:
        at, height, width = slices[row // times]
        part = slice(at, at + height * width)
        view = unflatten_patches(each.pixels[part], height, width, vision)[row % times]
        found.append((_unmerge(states[part], height, width, merge), view))
    return found


def _in_merge_order(states: Tensor, grid: Tensor, vision: Any) -> Tensor:
    """Undo the order of windows, in which the tower of Qwen2.5-VL leaves its states."""
    if getattr(vision, "window_size", None) is None:
        return states
    from transformers.vision_utils import get_vision_window_index

    merge = int(vision.spatial_merge_size)
    index, _ = get_vision_window_index(grid, merge, vision.window_size, vision.patch_size)
    units = states.unflatten(0, (-1, merge * merge))
    return units[index.argsort().to(states.device)].flatten(0, 1)


def _unmerge(flat: Tensor, height: int, width: int, merge: int) -> Tensor:
    """Return ``(height, width, C)`` from patches in the order in which squares of them are merged."""
    blocks = flat.unflatten(0, (height // merge, width // merge, merge, merge))
    return blocks.transpose(1, 2).reshape(height, width, -1)


def unflatten_patches(flat: Tensor, height: int, width: int, vision: Any) -> Tensor:
    """Return the pixels of flattened patches of one patch in time.

    Args:
        flat: ``(height * width, 3 * T * p * p)``, in merge order.
        height: Rows of patches.
        width: Columns of patches.
        vision: Configuration of the tower, or image processor, with ``patch_size`` and the merge size.

    Returns:
        ``(T, 3, height * p, width * p)``.
    """
    merge = int(getattr(vision, "spatial_merge_size", None) or vision.merge_size)
    patch, times = int(vision.patch_size), _temporal(vision)
    grid = _unmerge(flat, height, width, merge).reshape(height, width, 3, times, patch, patch)
    return grid.permute(3, 2, 0, 4, 1, 5).reshape(times, 3, height * patch, width * patch)


def group_by_shape(tensors: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the positions and the stack of tensors of one shape."""
    groups = dict[torch.Size, list[int]]()
    for place, each in enumerate(tensors):
        groups.setdefault(each.shape, []).append(place)
    for places in groups.values():
        yield places, torch.stack([tensors[place] for place in places])


def _temporal(vision: Any) -> int:
    return int(getattr(vision, "temporal_patch_size", None) or 1)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)
