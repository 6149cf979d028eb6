# SPDX-License-Identifier: Apache-2.0
"""From the requested size to the stages of a job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pixelsmith.config import Fit, JobConfig, SizeConfig, Slider, parse_size
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
        ValueError: If a size is out of range or of another shape, or the number of sliders is neither one nor
            that of the stages.
    """
    factor = model.vae_scale_factor
    native = model.patch * factor
    target = _target(sizes, image_size or (native, native), factor)
    fit = None
    if image_size is not None:
        first = _source_size(image_size, target, sizes.fit, factor)
        fit = sizes.fit if first != image_size else None
    elif base is not None:
        first = _fit(base, target, model.patch_multiple * factor)
        _check_shape("base", first, target, model.patch_multiple * factor)
    else:
        scale = min(1.0, native / math.sqrt(target[0] * target[1]))
        first = _nearest((target[0] * scale, target[1] * scale), model.patch_multiple * factor)
    if sizes.via:
        stages = [*(_fit(text, target, factor) for text in sizes.via), target]
        for size in stages:
            _check_shape("via", size, target, factor)
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
        source_size=first, sliders=tuple(each), fit=fit,
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


def _source_size(image: Size, target: Size, fit: Fit | None, multiple: int) -> Size:
    """Return the size to which an image is cropped or padded so that it has the shape of the result.

    Raises:
        ValueError: If the shapes differ and no way to fit them was chosen.
    """
    if fit is None:
        if not _is_alike(image, target, multiple):
            raise ValueError(
                f"the image is {image[1]} x {image[0]} pixels, and {target[1]} x {target[0]} is of another "
                "shape; add --fit crop or --fit pad, or name one side only"
            )
        return image
    aspect, own = target[1] / target[0], image[1] / image[0]
    if (own > aspect) == (fit == "crop"):  # the height of the image stays
        return image[0], max(1, round(image[0] * aspect))
    return max(1, round(image[1] / aspect)), image[1]


def _check_shape(name: str, size: Size, target: Size, multiple: int) -> None:
    if not _is_alike(size, target, multiple):
        raise ValueError(
            f"{name} must have the shape of the result, {target[1]} x {target[0]}, got {size[1]} x {size[0]}"
        )


def _is_alike(first: Size, second: Size, multiple: int) -> bool:
    """Return whether two sizes have one shape, but for rounding to whole multiples."""
    off = (first[0] * second[1] / second[0] - first[1], first[1] * second[0] / second[1] - first[0])
    back = (second[0] * first[1] / first[0] - second[1], second[1] * first[0] / first[1] - second[0])
    return min(map(abs, (*off, *back))) <= multiple


def _nearest(size: tuple[float, float], multiple: int) -> Size:
    """Return the size whose sides are the nearest positive multiples."""
    height, width = (max(multiple, math.floor(side / multiple + 0.5) * multiple) for side in size)
    return height, width
