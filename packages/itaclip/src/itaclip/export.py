# SPDX-License-Identifier: Apache-2.0
"""Export of the image side as ONNX: a window in, features and scores of every patch out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from common_kernels.runtime.export import (
    ONNX_OPSET,
    ExportError,
    check_export_extra,
    largest_difference,
    open_onnx,
    quiet_exporter,
)
from common_kernels.runtime.files import atomic_path
from torch import Tensor, nn
from torch.nn import functional as F

from itaclip.features import join_branches, make_branches, text_scores

if TYPE_CHECKING:
    from itaclip.model import ITACLIP

TOLERANCE = 1e-4
_MOST_BYTES = 1_900_000_000  # of a protocol buffer, short of its head


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Report of an export.

    Attributes:
        path: File that was written.
        size: Height and width of a window, in pixels.
        grid: Patches of a window along height and width.
        error: Largest difference of a score from the model's own, over all checked batches.
        num_bytes: Size of the file.
    """

    path: Path
    size: tuple[int, int]
    grid: tuple[int, int]
    error: float
    num_bytes: int


class WindowScorer(nn.Module):
    """Normalisation, branches, image tower and similarity with texts, for windows of one size.

    Args:
        segmenter: Segmenter whose model and configuration are exported.

    Shape:
        - images: ``(B, 3, H, W)``, RGB in [0, 1]
        - text: ``(names, D)``
        - output: features ``(B, D, height, width)`` and scores ``(B, names, height, width)``, in patches
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, segmenter: ITACLIP) -> None:
        super().__init__()
        self.visual = segmenter.model.visual
        self.encoder, self.config = segmenter.encoder, segmenter.config
        self.attention = segmenter.windows.attention
        self.register_buffer("pixel_mean", segmenter.windows.normalizer.mean.clone())
        self.register_buffer("pixel_std", segmenter.windows.normalizer.std.clone())

    def forward(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and scores."""
        inputs = make_branches((images - self.pixel_mean) / self.pixel_std, self.config)
        maps = self.encoder(inputs, self.attention, positions=self.config.positions)
        features = join_branches(maps, self.config)
        return features, text_scores(text)(features)


def export_onnx(
    segmenter: ITACLIP, target: Path, *, size: tuple[int, int] | None = None, verify: bool = True
) -> ExportReport:
    """Write the image side of a model and check it against the model.

    Args:
        segmenter: On the CPU in fp32; classes need not be set.
        target: An ``.onnx`` file.
        size: Height and width of a window; the configuration's ``crop`` if ``None``.
        verify: Whether ONNX Runtime computes the same for batches of 1 and 3, within 1e-4.

    Raises:
        ImportError: If onnx, onnxscript or, to verify, onnxruntime is missing.
        ValueError: If the size is unknown or too small, or the model cannot be exported.
        ExportError: If the file computes something else; it is then not kept.
        OSError: If the file cannot be written.
    """
    check_export_extra("itaclip", verify=verify)
    size = _window_size(segmenter, size)
    if target.suffix.lower() != ".onnx":
        raise ValueError(f"the file must be an .onnx, got {target.name}")
    scorer = WindowScorer(segmenter).eval()
    generator = torch.Generator().manual_seed(0)
    text_dim = _feature_dim(scorer, size)
    examples = [
        (
            torch.rand((count, 3, *size), generator=generator),
            F.normalize(torch.randn((names, text_dim), generator=generator), dim=1),
        )
        for count, names in ((2, 4), (1, 2), (3, 7))
    ]
    with atomic_path(target) as part:
        _write(scorer, examples[0], part, metadata=_metadata(segmenter, size))
        grid, error = _largest_error(scorer, examples[1:], part) if verify else (_grid(segmenter, size), 0.0)
        if not error <= TOLERANCE:
            raise ExportError(
                f"{target} would differ from the model by {error:.2g}, more than {TOLERANCE:g}: not written"
            )
    return ExportReport(target, size, grid, error, target.stat().st_size)


def _window_size(segmenter: ITACLIP, size: tuple[int, int] | None) -> tuple[int, int]:
    config, patch = segmenter.config, segmenter.encoder.patch_size
    if size is None:
        if not config.crop:
            raise ValueError("the configuration takes whole images (crop=0): give the size of a window")
        size = (config.crop, config.crop)
    if size[0] < patch[0] or size[1] < patch[1]:
        raise ValueError(f"size must be at least one patch of {patch[0]} x {patch[1]} px, got {size}")
    weight = next(segmenter.model.parameters())
    if segmenter.windows.attention.has_towers:
        raise ValueError(
            f"attention {config.attention.strategy} needs another model, which the file cannot hold: export "
            "a method of CLIP alone"
        )
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ValueError(f"the model must be on the CPU in fp32, got {weight.device} and {weight.dtype}")
    visual: Any = segmenter.model.visual
    num_bytes = sum(4 * parameter.numel() for parameter in visual.parameters())
    if num_bytes > _MOST_BYTES:
        raise ValueError(f"the image tower has {num_bytes / 1e9:.1f} GB, but an ONNX file ends at 2 GB")
    return size


def _grid(segmenter: ITACLIP, size: tuple[int, int]) -> tuple[int, int]:
    patch = segmenter.encoder.patch_size
    return size[0] // patch[0], size[1] // patch[1]


@torch.inference_mode()
def _feature_dim(scorer: WindowScorer, size: tuple[int, int]) -> int:
    """Return the channels of the text space; fills the tower's store of position embeddings, too."""
    maps = scorer.encoder(torch.zeros(1, 3, *size), scorer.attention, positions=scorer.config.positions)
    return maps.shape[1]


def _metadata(segmenter: ITACLIP, size: tuple[int, int]) -> dict[str, str]:
    values = {"config": segmenter.config.to_dict(), "size": list(size), "grid": list(_grid(segmenter, size))}
    return {"itaclip": json.dumps(values)}


def _write(
    scorer: WindowScorer, example: tuple[Tensor, Tensor], path: Path, *, metadata: dict[str, str]
) -> None:
    dynamic: Any = {"images": {0: torch.export.Dim.DYNAMIC}, "text": {0: torch.export.Dim.DYNAMIC}}
    with quiet_exporter(), torch.no_grad():
        program: Any = torch.onnx.export(
            scorer,
            example,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=["images", "text"],
            output_names=["features", "scores"],
            opset_version=ONNX_OPSET,
            verbose=False,
        )
        program.model.metadata_props.update(metadata)
        program.save(str(path))


@torch.inference_mode()
def _largest_error(
    scorer: WindowScorer, examples: list[tuple[Tensor, Tensor]], path: Path
) -> tuple[tuple[int, int], float]:
    run = open_onnx(path)
    error, grid = 0.0, (0, 0)
    for images, text in examples:
        expected = scorer(images, text)
        found = run({"images": images.numpy(), "text": text.numpy()})
        error = max(error, largest_difference([each.numpy() for each in expected], found))
        grid = (expected[0].shape[-2], expected[0].shape[-1])
    return grid, error
