# SPDX-License-Identifier: Apache-2.0
"""``itaclip export``: the image side as an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import Output, emit, explain, progress, say, warn
from common_kernels.runtime.files import atomic_write
from cyclopts import Parameter

from itaclip.cli.options import AnyImageModel, ClassOptions, MethodOptions

if TYPE_CHECKING:
    from itaclip.model import ITACLIP


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOutput(Output):
    """File of the image side.

    Attributes:
        output: ONNX file, NAME.onnx.
        overwrite: Discard earlier results.
    """

    output: Annotated[Path, Parameter(alias="-o")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportClasses(ClassOptions):
    """Classes whose embeddings are written to NAME-texts.npz.

    Attributes:
        classes: Names, as for "itaclip segment"; without them, only the image side is written.
    """

    classes: Annotated[str, Parameter(alias="-c")] = ""


def export(
    *,
    output: ExportOutput,
    classes: ExportClasses = ExportClasses(),
    model: AnyImageModel = AnyImageModel(),
    method: MethodOptions = None,
    size: int | None = None,
    verify: bool = True,
) -> int:
    """Write the image side of a model as ONNX: windows in, features and scores of every patch out.

    Inputs: images (batch, 3, size, size), RGB in [0, 1]; text (names, D), as in NAME-texts.npz. Outputs:
    features (batch, D, height, width) and scores (batch, names, height, width), in patches. Inside are
    normalisation and branches, but not windows, refinement and rules: their configuration is in the metadata
    entry "itaclip". Needs: pip install "itaclip[export]".

    **Examples**

        itaclip export -o tiny.onnx
        itaclip export -o vit-b-16.onnx -c "cat, dog, sky" --method fast --model ViT-B-16 --pretrained openai

    Exit code: 0 done, 1 the file disagrees with the model, 2 nothing could be done.

    Args:
        size: Side of a window in pixels; by default the method's crop.
        verify: Comparison of the file with the model in ONNX Runtime, to 1e-4.
    """
    from common_kernels.runtime.export import ExportError

    from itaclip.export import export_onnx

    path, entry = output.output, {"input": model.model, "output": str(output.output)}
    written = path.with_name(f"{path.stem}-texts.npz") if classes.classes else None
    _check_files(path, written, overwrite=output.overwrite)
    if classes.classes:
        segmenter = classes.setup(model, method, "float32").load("cpu")
    else:
        segmenter = model.load(model.config(method), device="cpu", dtype="float32")
    with progress("exporting"):
        try:
            report = export_onnx(segmenter, path, size=None if size is None else (size, size), verify=verify)
        except ExportError as error:
            if output.debug:
                raise
            warn(explain(error))
            if output.json:
                emit({**entry, "status": "failed", "error": explain(error)})
            return 1
    if written is not None:
        _save_texts(segmenter, written)
    if output.json:
        texts, difference = str(written) if written else None, report.error if verify else None
        sizes = {"size": list(report.size), "grid": list(report.grid), "bytes": report.num_bytes}
        emit({**entry, "status": "done", "texts": texts, "difference": difference, **sizes})
        return 0
    checked = f"differs from the model by at most {report.error:.1e}" if verify else "not verified"
    say(f"{path}: {report.num_bytes / 1e6:.1f} MB, windows of {report.size[0]} px, {checked}")
    if written is not None:
        say(f"{written}: text features")
    return 0


def _check_files(path: Path, texts: Path | None, *, overwrite: bool) -> None:
    """Refuse files that cannot be written before a model is loaded."""
    if path.suffix.lower() != ".onnx":
        raise ValueError(f"--output must be an .onnx file, got {path}")
    for file in (path, texts):
        if file is not None and file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists: --overwrite replaces it")


def _save_texts(segmenter: ITACLIP, path: Path) -> None:
    """Write ``NAME-texts.npz``: one feature per name, and the class that it belongs to."""
    import numpy as np

    classes = segmenter.classes
    with atomic_write(path) as file:
        np.savez(
            file,
            text=segmenter.text_features.numpy(),
            names=np.array(classes.names),
            owner=np.array(classes.owner),
            labels=np.array(classes.labels),
        )
