# SPDX-License-Identifier: Apache-2.0
"""Regions of an image, whatever they show, from a model of transformers for panoptic segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from common_kernels.runtime.hub import ModelNotFoundError, check_hub, quiet_libraries
from torch import Tensor

from itaclip.pretrained import load_complete, reason_of


class RegionModel:
    """Numbers the regions of an image.

    Args:
        name: Folder or hub id of a Mask2Former, OneFormer or EoMT of transformers.

    Raises:
        ModelNotFoundError: If there is no such model.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

        if not Path(name).is_dir():
            check_hub(name)
        try:
            with quiet_libraries("transformers"):
                self.processor: Any = AutoImageProcessor.from_pretrained(name)
            self.model: Any = load_complete(AutoModelForUniversalSegmentation, name)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelNotFoundError(
                f"the model of regions {name!r} cannot be loaded: it must be a folder or hub id of a "
                f"Mask2Former, OneFormer or EoMT of transformers ({reason_of(error)})"
            ) from error
        self.model.eval().requires_grad_(False)

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the number of the region of every pixel, ``(H, W)``, int64 on the CPU; 0 for none.

        Args:
            pixels: ``(3, H, W)``, RGB in [0, 1].
        """
        image = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        inputs = self.processor(images=image, return_tensors="pt").to(self.model.device)
        with torch.no_grad():
            outputs = self.model(**inputs)
        with quiet_libraries("transformers"):  # it warns that nothing is fused, which is what is wanted
            (found,) = self.processor.post_process_panoptic_segmentation(
                outputs, target_sizes=[tuple(pixels.shape[-2:])]
            )
        numbers = found["segmentation"].cpu()
        regions = torch.zeros(numbers.shape, dtype=torch.int64)
        # what is no region has number 0 or -1, as the model has it
        for place, segment in enumerate(found["segments_info"], 1):
            regions[numbers == segment["id"]] = place
        return regions
