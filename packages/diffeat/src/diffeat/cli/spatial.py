# SPDX-License-Identifier: Apache-2.0
"""Features of a few images in memory, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common_kernels.runtime.cli import progress

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from diffeat.cli.frame import Machine
    from diffeat.extractor import FeatureExtractor
    from diffeat.features import Features
    from diffeat.options import ExtractionOptions


def extract_each(
    extractor: FeatureExtractor,
    images: Sequence[Path | Image.Image],
    names: Sequence[str],
    options: ExtractionOptions,
    machine: Machine,
) -> list[Features]:
    """Features of each image, ``(1, C, h, w)``; where aspect ratios are kept, grids differ.

    Raises:
        ValueError: If an activation has no channels on the image.
    """
    from diffeat.features import Features

    with progress("images") as bar:
        if options.keep_aspect:
            found: list[Features] = []
            for image in images:
                found.append(extractor([image], names, options))
                bar(len(found), len(images))
        else:
            every = extractor(images, names, options, batch_size=machine.batch_size, on_batch=bar)
            found = [
                Features({name: value[i : i + 1] for name, value in every.items()}, every.meta)
                for i in range(len(images))
            ]
    for each in found:
        each.check_spatial()
    return found
