# SPDX-License-Identifier: Apache-2.0
"""``diffeat demo``: activations of a small model, offline, in a minute."""

from __future__ import annotations

from pathlib import Path

from common_kernels.runtime.cli import Device, OutputPath, Report, emit, progress, say, show

from diffeat.cli.frame import load_extractor


def demo(
    *,
    output: OutputPath = Path("diffeat-demo"),
    machine: Device = Device(),
    model: str = "tiny-sdxl",
    report: Report = Report(),
) -> None:
    """List, extract, rank and draw activations of the small model inside this package.

    Runs offline on drawn scenes of 128 pixels. Writes pca.png (image, earlier activations, activations
    chosen here), similarity.png, matches.png (green is correct), page.html to click in, and ranking.json.

    PCK is the share of points of one view found in another, on pairs not used for the choice.

    **Examples**

        diffeat demo
        diffeat demo -o figures/ --json

    Args:
        output: Folder of the files; earlier ones are replaced.
        model: Shipped name, folder or hub id of a pipeline with a U-Net of three levels.
    """
    extractor = load_extractor(model, machine)
    from diffeat.demo import run_demo

    with progress("activations") as bar:
        figures, ranking = run_demo(extractor, output, name=model, progress=bar)
    if report.json:
        emit(figures.to_dict())
        return
    show(ranking.table())
    say(
        f"The model has {figures.num_activations} activations; {figures.ranked} were ranked.\n"
        f"Classes of pixels, mIoU: {figures.miou:.3f} by the best of them, "
        f"{figures.miou_baseline:.3f} by the outputs of the levels, as in earlier work.\n"
        f"{figures.points} points in another view, PCK at {figures.threshold:g} of the side: "
        f"{figures.pck:.3f} by the choice, {figures.pck_baseline:.3f} by the outputs of the levels, "
        f"{figures.pck_pixels:.3f} by raw pixels.\n"
        f"Chosen: {', '.join(figures.chosen)}.\n"
        f"Look at {output / 'pca.png'} and {output / 'matches.png'}, and open "
        f"{output / 'page.html'} in a browser."
    )
