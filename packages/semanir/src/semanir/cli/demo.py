# SPDX-License-Identifier: Apache-2.0
"""``semanir demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import Device, OutputPath, Report, emit, progress, say, show
from cyclopts import Group, Parameter

from semanir.options import DemoOptions

if TYPE_CHECKING:
    from rich.table import Table

    from semanir.demo import DemoFigures


def demo(
    *,
    output: OutputPath = Path("semanir-demo"),
    options: Annotated[
        DemoOptions, Parameter(name="*", group=Group("Demonstration", sort_key=1))
    ] = DemoOptions(),
    device: Device = Device(),
    report: Report = Report(),
    model: str = "tiny-denoise",
) -> None:
    """Add noise to a photograph, take it away again, and show what that is worth.

    Runs offline with the model and the photograph inside this package and writes noisy.png, restored.png and
    comparison.png. The other photographs, and non-local means beside the network (baseline.png), need
    scikit-image: pip install "semanir[baselines]".

    **Examples**

        semanir demo
        semanir demo --photograph coffee --sigma 50 -o coffee/

    Args:
        output: Folder for the images.
        model: Shipped name, folder, or hub id; see `semanir models`.
    """
    from semanir.demo import run_demo
    from semanir.restorer import Restorer

    restorer = Restorer.from_pretrained(model, device=device.device, dtype=device.dtype)
    with progress("restoring") as on_progress:
        figures = run_demo(restorer, output, options, progress=on_progress)
    if report.json:
        emit(figures.to_dict())
        return
    show(_table(figures))
    say(f"Look at {output / 'comparison.png'}")


def _table(figures: DemoFigures) -> Table:
    from rich.table import Table

    title = f"{figures.photograph}, Gaussian noise of sigma {figures.sigma:g}"
    table = Table("", "PSNR (dB)", "SSIM", "seconds", title=title)
    rows = (
        ("noisy", figures.psnr_noisy, figures.ssim_noisy, None),
        (
            "non-local means (knows sigma)",
            figures.psnr_baseline,
            figures.ssim_baseline,
            figures.seconds_baseline,
        ),
        ("SemanIR (blind)", figures.psnr, figures.ssim, figures.seconds),
    )
    for name, psnr, ssim, seconds in rows:
        if psnr is None or ssim is None:
            continue
        table.add_row(name, f"{psnr:.2f}", f"{ssim:.3f}", "" if seconds is None else f"{seconds:.1f}")
    return table
