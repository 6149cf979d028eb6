# SPDX-License-Identifier: Apache-2.0
"""``itaclip demo``: the method on drawn scenes, offline, in a minute."""

from __future__ import annotations

from pathlib import Path

from common_kernels.runtime.cli import Device, OutputPath, Report, emit, progress, say, show


def demo(
    *,
    output: OutputPath = Path("itaclip-demo"),
    model: str = "tiny-shapes",
    device: Device = Device(),
    report: Report = Report(),
) -> None:
    """Segment drawn scenes by colour with plain CLIP, with ITACLIP, and with the preset of the small model.

    Runs offline on the model and the scenes inside this package. Writes comparison.png, and for each scene an
    overlay, scene-1.png, and an interactive page, scene-1.html.

    **Examples**

        itaclip demo
        itaclip demo -o figures --json

    Exit code: 0 done, 2 nothing could be done.

    Args:
        output: Folder to write to.
        model: Shipped name, folder or hub id of a CLIP model.
    """
    from rich.table import Table

    from itaclip.demo import run_demo
    from itaclip.model import ITACLIP

    segmenter = ITACLIP.from_pretrained(model, preset="vanilla", device=device.device, dtype=device.dtype)
    with progress("segmenting") as on_progress:
        figures = run_demo(segmenter, output, name=model, progress=on_progress)
    if report.json:
        emit(figures.to_dict())
        return
    table = Table("", "mIoU (%)", "pixel accuracy (%)", "seconds")
    table.title = f"{figures.scenes} drawn scenes, {figures.classes} colours and the background"
    rows = {
        "plain CLIP": (figures.miou_vanilla, figures.accuracy_vanilla, figures.seconds_vanilla),
        "ITACLIP": (figures.miou_itaclip, figures.accuracy_itaclip, figures.seconds_itaclip),
        "tuned on colours (preset tiny-shapes)": (figures.miou, figures.accuracy, figures.seconds),
    }
    for title, (miou, accuracy, seconds) in rows.items():
        style = "bold" if title == "ITACLIP" else None
        table.add_row(title, f"{miou:.1f}", f"{accuracy:.1f}", f"{seconds:.1f}", style=style)
    show(table)
    say(f"See {output / 'comparison.png'}, and open {output / 'scene-1.html'} in a browser")
