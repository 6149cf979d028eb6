# SPDX-License-Identifier: Apache-2.0
"""Encoded conversations, one as arrays and many as tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitron.model.hf.media import Visual

__all__ = ["IGNORED", "Batch", "Encoded", "move"]

IGNORED = -100


@dataclass(slots=True, kw_only=True)
class Batch:
    """Conversations as tensors: inputs of the model, and targets of the losses.

    Attributes:
        input_ids: ``(B, L)``.
        attention_mask: ``(B, L)``.
        labels: ``(B, L)``: assistant messages and their end tokens, -100 elsewhere.
        media: Further inputs of the backbone, such as ``pixel_values``.
        frame_rows: Row of each shown frame in the batch of the vision tower, ``(F,)``; ``None`` without any.
        region_masks: ``(H, W)`` each, 0 to 1, as the tower sees the image.
        region_frames: Position among the shown frames of each region, ``(R,)``.
        region_boxes: Corners as fractions of the image, ``(R, 4)``; NaN for the box around the mask.
        call_modules: Module of each complete call, in the order of the batch.
        call_rows: Row of each call.
        call_tokens: Instruction tokens of each call.
        mask_calls: Call of each target mask, ``(N,)``.
        mask_frames: Position among the shown frames of each target mask, ``(N,)``.
        mask_targets: ``(h, w)`` each, 0 to 1.
        tasks: Task of each row.
        conditions: Text encoder's vectors ``(n, C)``, by call.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    media: dict[str, Any]
    frame_rows: Tensor | None = None
    region_masks: list[Tensor]
    region_frames: Tensor
    region_boxes: Tensor
    call_modules: list[str]
    call_rows: Tensor
    call_tokens: list[list[int]]
    mask_calls: Tensor
    mask_frames: Tensor
    mask_targets: list[Tensor]
    tasks: list[str]
    conditions: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        moved = {each.name: move(getattr(self, each.name), device) for each in fields(self)}
        return replace(self, **moved)

    def inputs(self) -> dict[str, Any]:
        """Return the inputs of the model, without labels."""
        found = {"input_ids": self.input_ids, "attention_mask": self.attention_mask, **self.media}
        if self.frame_rows is not None:
            found["frame_rows"] = self.frame_rows
        if self.region_masks:
            found["region_masks"] = self.region_masks
            found["region_frames"] = self.region_frames
            found["region_boxes"] = self.region_boxes
        return found


@dataclass(slots=True)
class Encoded:
    """One conversation as arrays.

    Attributes:
        ids: Token ids.
        labels: Token ids of assistant messages, -100 elsewhere.
        visuals: What each placeholder of an image or a video stands for, in order: shown frames, uint8.
        regions: As the tower sees the image, ``(H, W)`` uint8.
        region_frames: Position of each region among the shown frames.
        region_boxes: Corners of each region as fractions of the image, or ``None``.
        modules: Module of each call.
        masks: Call, position among the shown frames, and covered share ``(h, w)``, 0 to 255.
        task: Task name.
        conditions: Text encoder's vectors ``(n, C)``, by call.
    """

    ids: list[int]
    labels: list[int]
    visuals: list[Visual]
    regions: list[NDArray[np.uint8]]
    region_frames: list[int]
    region_boxes: list[tuple[float, float, float, float] | None]
    modules: list[str]
    masks: list[tuple[int, int, NDArray[np.uint8]]]
    task: str
    conditions: dict[int, NDArray[np.floating]] = field(default_factory=dict[int, NDArray[np.floating]])

    @property
    def num_frames(self) -> int:
        """Number of shown frames."""
        return sum(len(each.frames) for each in self.visuals)


def move(value: Any, device: torch.device | str) -> Any:
    """Return a tensor, or the tensors of a list or a dictionary, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: move(each, device) for key, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        return [each.to(device) for each in cast("list[Tensor]", value)]
    return value
