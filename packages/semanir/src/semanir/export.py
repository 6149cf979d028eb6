# SPDX-License-Identifier: Apache-2.0
"""A network as one file for other programs: ONNX, or a graph of ``torch.export``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from torch.export import Dim

from semanir.config import SemanIRConfig
from semanir.functional import pad_to_multiple
from semanir.model import SemanIR
from semanir.onnx_sizes import allow_any_size

Format = Literal["onnx", "torch"]

TOLERANCE = 1e-4
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
_MOST_BYTES = 1_900_000_000  # of a protocol buffer, short of its head
_MOST_GRIDS = 1024  # windows along a side


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Report of an export.

    Attributes:
        path: File that was written.
        grid: Multiple of the sides that the graph takes, in pixels: 1 for any size.
        sizes: Heights and widths at which it was compared with the network; empty if it was not.
        error: Largest difference from the network, on the scale of [0, 1].
        num_bytes: Size of the file.
    """

    path: Path
    grid: int
    sizes: tuple[tuple[int, int], ...]
    error: float
    num_bytes: int


class DenseNetwork(nn.Module):
    """A network with its attention under dense masks, the form that graphs hold.

    Args:
        model: Network.
        k: Keys per token, which become part of the graph; those of the configuration if ``None``.

    Shape:
        - image: ``(B, in_channels, H, W)``, both sides multiples of the grid, from twice the grid
        - output: ``(B, out_channels, upscale * H, upscale * W)``
    """

    def __init__(self, model: SemanIR, k: int | None = None) -> None:
        super().__init__()
        self.model, self.k = model, k

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        return self.model(image, k=self.k, backend="sdpa")


def export(
    model: SemanIR, target: Path, *, format: Format = "onnx", k: int | None = None, verify: bool = True
) -> ExportReport:
    """Write a network as one file, and compare it with the network at two sizes.

    The file takes one image, ``(1, in_channels, H, W)`` in [0, 1], fp32. An ONNX file takes any height and
    width; a graph of torch multiples of the network's grid, from twice the grid.

    Args:
        model: On the CPU in fp32.
        target: File to write: ``.onnx``, or ``.pt2`` for torch.
        format: ``"onnx"``, or ``"torch"`` for ``torch.export.load``.
        k: Keys per token, fixed in the file; those of the configuration if ``None``.
        verify: Whether ONNX Runtime, or the loaded graph, computes the same at two sizes, to 1e-4.

    Raises:
        ImportError: If onnx, onnxscript or, to verify, onnxruntime is missing.
        ValueError: If the suffix is another, or the network is not on the CPU in fp32, or too large for ONNX.
        ExportError: If the file computes something else; it is then not kept.
        OSError: If the file cannot be written.
    """
    _check(model, target, format, k)
    if format == "onnx":
        check_export_extra("semanir", verify=verify)
    model = model.eval()
    grid = model.config.size_multiple
    with atomic_path(target) as part:
        program = _trace(DenseNetwork(model, k), model.config)
        if format == "onnx":
            _write_onnx(program, part, model.config, k)
        else:
            torch.export.save(program, part)
        sizes = ((2 * grid + 3, 3 * grid - 1), (2 * grid, 4 * grid)) if verify else ()
        error = max((_difference(model, part, format, k, size) for size in sizes), default=0.0)
        if not error <= TOLERANCE:
            raise ExportError(
                f"{target} would differ from the network by {error:.2g}, more than {TOLERANCE:g}: not written"
            )
    return ExportReport(target, 1 if format == "onnx" else grid, sizes, error, target.stat().st_size)


def _check(model: SemanIR, target: Path, format: Format, k: int | None) -> None:
    if target.suffix.lower() != SUFFIXES[format]:
        raise ValueError(f"the file must be a {SUFFIXES[format]} for {format}, got {target.name}")
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ValueError(f"the network must be on the CPU in fp32, got {weight.device} and {weight.dtype}")
    num_bytes = sum(4 * parameter.numel() for parameter in model.parameters())
    if format == "onnx" and num_bytes > _MOST_BYTES:
        raise ValueError(f"the network has {num_bytes / 1e9:.1f} GB, but an ONNX file ends at 2 GB")


def _trace(network: DenseNetwork, config: SemanIRConfig) -> torch.export.ExportedProgram:
    """Trace with height and width left open, as multiples of the grid."""
    grid = config.size_multiple
    rows, columns = (Dim(name, min=2, max=_MOST_GRIDS) for name in ("rows", "columns"))
    # sides unlike each other and unlike everything else, so that none is taken for another
    example = torch.zeros(1, config.in_channels, 3 * grid, 5 * grid)
    dynamic: Any = {"image": {2: grid * rows, 3: grid * columns}}
    with quiet_exporter(), torch.no_grad():
        return torch.export.export(network, (example,), dynamic_shapes=dynamic, strict=False)


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, config: SemanIRConfig, k: int | None
) -> None:
    import onnx

    with quiet_exporter(), torch.no_grad():
        converted: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["image"],
            output_names=["restored"],
            opset_version=ONNX_OPSET,
            custom_translation_table={torch.ops.aten.sort.stable: _sort},
            verbose=False,
        )
    model = allow_any_size(converted.model_proto, config.size_multiple, config.upscale)
    values = {"config": config.to_dict(), "k": config.k if k is None else k}
    onnx.helper.set_model_props(model, {"semanir": json.dumps(values)})
    onnx.save(model, path)


def _sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """Write a stable sort as ONNX's TopK of all values, which gives ties in the order of their index."""
    from onnxscript import opset20

    op: Any = opset20  # its types are those of ONNX, not of what a trace passes
    count = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


@torch.inference_mode()
def _difference(model: SemanIR, path: Path, format: Format, k: int | None, size: tuple[int, int]) -> float:
    image = torch.rand((1, model.config.in_channels, *size), generator=torch.Generator().manual_seed(0))
    if format == "torch":
        image = pad_to_multiple(image, model.config.size_multiple)
        theirs: list[Any] = [torch.export.load(path).module()(image).numpy()]
    else:
        theirs = open_onnx(path)({"image": image.numpy()})
    return largest_difference([model(image, k=k).numpy()], theirs)
