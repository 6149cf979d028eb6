# SPDX-License-Identifier: Apache-2.0
"""``semanir export``: a network as one file for other programs."""

from __future__ import annotations

from typing import Literal

from common_kernels.runtime.cli import Output, emit, explain, progress, say, warn


def export(
    model: str = "tiny-denoise",
    /,
    *,
    output: Output,
    format: Literal["auto", "onnx", "torch"] = "auto",
    k: int | None = None,
    verify: bool = True,
) -> int:
    """Write a network as ONNX, or as a graph that torch.export.load reads.

    Input: "image", (1, channels, height, width), RGB or grey in [0, 1], of any size; a graph of torch takes
    multiples of the network's grid, from twice the grid. Output: "restored", not clipped. Attention is
    computed under dense masks. Needs for ONNX: pip install "semanir[export]".

    **Examples**

        semanir export tiny-denoise -o denoise.onnx
        semanir export runs/mine/model -o mine.pt2 --k 16

    Exit code: 0 done, 1 the file disagrees with the network, 2 nothing could be done.

    Args:
        model: Shipped name, folder, file, or hub id; see `semanir models`.
        format: Format: onnx, or torch; auto follows the suffix of the file, .onnx or .pt2.
        k: Keys per token, fixed in the file; by default the number of the network.
        verify: Comparison of the file with the network at two sizes, to 1e-4.
    """
    path = output.output
    chosen = {"auto": "torch" if path.suffix.lower() == ".pt2" else "onnx"}.get(format, format)
    suffix = {"onnx": ".onnx", "torch": ".pt2"}[chosen]
    if path.suffix.lower() != suffix:
        raise ValueError(f"--output must be a {suffix} file for {chosen}, got {path}")
    if path.exists() and not output.overwrite:
        raise FileExistsError(f"{path} exists: --overwrite replaces it")
    from common_kernels.runtime.export import ExportError

    from semanir.export import export as write
    from semanir.model import SemanIR

    network = SemanIR.from_pretrained(model, device="cpu", dtype="float32")
    entry: dict[str, object] = {"input": model, "output": str(path)}
    with progress("exporting"):
        try:
            report = write(network, path, format="torch" if chosen == "torch" else "onnx", k=k, verify=verify)
        except ExportError as error:
            if output.debug:
                raise
            warn(explain(error))
            if output.json:
                emit({**entry, "status": "failed", "error": explain(error)})
            return 1
    difference = report.error if verify else None
    if output.json:
        found = {"grid": report.grid, "difference": difference, "bytes": report.num_bytes}
        emit({**entry, "status": "done", **found, "sizes": [list(size) for size in report.sizes]})
        return 0
    checked = (
        "not verified" if difference is None else f"differs from the network by at most {difference:.1e}"
    )
    sizes = "any size" if report.grid == 1 else f"sides that are multiples of {report.grid} px"
    say(f"{path}: {report.num_bytes / 1e6:.1f} MB, {sizes}, {checked}")
    return 0
