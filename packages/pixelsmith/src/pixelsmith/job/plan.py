# SPDX-License-Identifier: Apache-2.0
"""From the requested size to the stages of a job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pixelsmith.config import JobConfig, SizeConfig, Slider, parse_size
from pixelsmith.core.model import JobModel
from pixelsmith.job.spec import JobSpec, Size

__all__ = ["plan_job", "plan_stages"]


def plan_job(
    model: JobModel,
    config: JobConfig,
    sizes: SizeConfig,
    *,
    image_size: Size | None = None,
    base: str | None = None,
    sliders: Sequence[Slider] = (),
) -> JobSpec:
    """Work out the stages of a job.

    Args:
        model: The model.
        config: Settings of the denoising loop.
        sizes: Size of the result and sizes on the way to it.
        image_size: Height and width of the image to enlarge; ``None`` lets the model generate one.
        base: Size of the base image, WIDTHxHEIGHT or one number for the longer side; by default of the aspect
            of the result and, at most, of the area that the model was trained at.
        sliders: Slider of each stage, or one for all; that of the configuration if there is none.

    Raises:
        ValueError: If a size is out of range, or the number of sliders is neither one nor that of the stages.
    """
    factor = model.vae_scale_factor
    native = model.patch * factor
    target = _target(sizes, image_size or (native, native), factor)
    if image_size is not None:
        first = image_size
    elif base is not None:
        first = _fit(base, target, model.patch_multiple * factor)
    else:
        scale = min(1.0, native / math.sqrt(target[0] * target[1]))
        first = _nearest((target[0] * scale, target[1] * scale), model.patch_multiple * factor)
    if sizes.via:
        stages = [*(_fit(text, image_size or target, factor) for text in sizes.via), target]
    elif image_size is None and first == target:
        stages = []  # the model generates the result itself
    else:
        stages = plan_stages(first, target, factor, sizes.stages)
    if len(sliders) not in (0, 1, len(stages)):
        raise ValueError(
            f"there must be one slider, or one for each of the {len(stages)} stages, got {len(sliders)}"
        )
    each = sliders if len(sliders) == len(stages) else list(sliders) * len(stages)
    return JobSpec(
        sizes=tuple(stages), config=replace(config, slider=sliders[0]) if sliders else config,
        source_size=first, sliders=tuple(each),
    )  # fmt: skip


def plan_stages(first: Size, target: Size, multiple: int, count: int = 1) -> list[Size]:
    """Divide the way from one size to another into stages that enlarge by the same factor.

    Args:
        first: Height and width of the first image, pixels.
        target: Height and width of the result, pixels.
        multiple: Divisor of the sides of the stages on the way, pixels.
        count: Number of stages.

    Example:
        >>> plan_stages((1024, 1024), (4096, 4096), 8, 2)
        [(2048, 2048), (4096, 4096)]
    """
    grown = [target[0] / first[0], target[1] / first[1]]
    shares = [number / count for number in range(1, count)]
    way = [
        _nearest((first[0] * grown[0] ** share, first[1] * grown[1] ** share), multiple) for share in shares
    ]
    return [*way, target]


def _target(sizes: SizeConfig, held: Size, multiple: int) -> Size:
    """Return height and width of the result, given those of the image, or the native ones."""
    height, width = held
    if sizes.size is not None:
        return _fit(sizes.size, held, multiple)
    if sizes.height is not None and sizes.width is not None:
        return sizes.height, sizes.width
    if sizes.width is not None:
        return _nearest((sizes.width * height / width, sizes.width), multiple)[0], sizes.width
    if sizes.height is not None:
        return sizes.height, _nearest((sizes.height, sizes.height * width / height), multiple)[1]
    scale = 2.0 if sizes.scale is None else sizes.scale
    return _nearest((height * scale, width * scale), multiple)


def _fit(text: str, aspect: Size, multiple: int) -> Size:
    """Return height and width of a size; one number is the longer side, and the other follows the aspect."""
    width, height = parse_size(text)
    if height is not None:
        return height, width
    longer = width
    if aspect[0] == aspect[1]:
        return longer, longer
    shorter = _nearest((longer * min(aspect) / max(aspect), longer), multiple)[0]
    return (longer, shorter) if aspect[0] > aspect[1] else (shorter, longer)


def _nearest(size: tuple[float, float], multiple: int) -> Size:
    """Return the size whose sides are the nearest positive multiples."""
    height, width = (max(multiple, math.floor(side / multiple + 0.5) * multiple) for side in size)
    return height, width
