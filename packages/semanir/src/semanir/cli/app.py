# SPDX-License-Identifier: Apache-2.0
"""Commands and their options; what they do stands in the modules beside this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from semanir.cli.batch import collect_jobs, run_jobs
from semanir.cli.output import fail, tile_progress, user_errors
from semanir.images import MAX_PIXELS

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="""Restore images with SemanIR, a transformer that shares key semantics.

    [bold]Examples[/bold]

      semanir demo

      semanir restore noisy.jpg -o clean.png --compare

      semanir restore holiday/ -o restored/ --recursive

      semanir models""",
)
stdout, stderr = Console(), Console(stderr=True)

Device = Annotated[str, typer.Option(help="auto, cpu or cuda[:n].", rich_help_panel="Machine")]
DTypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Arithmetic; auto is float32.", rich_help_panel="Machine"),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per result on stdout.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Machine")
]
Model = Annotated[str, typer.Option(help="Shipped name, folder, or hub id; see 'semanir models'.")]


@app.command()
def restore(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, or quoted globs.", metavar="IN...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for one input file, else a folder.")],
    model: Model = "tiny-denoise",
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="0 keeps the input, 1 the full effect.")
    ] = 1.0,
    k: Annotated[int | None, typer.Option(min=1, help="Keys per token; fewer is a little faster.")] = None,
    self_ensemble: Annotated[bool, typer.Option(help="Average 8 turns: better, 8 times slower.")] = False,
    compare: Annotated[bool, typer.Option(help="Also write NAME-compare.png, before and after.")] = False,
    suffix: Annotated[str, typer.Option(help="Added to the file names in an output folder.")] = "",
    file_format: Annotated[
        str | None, typer.Option("--format", help="png, jpg, webp, tif or bmp in an output folder.")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Also the folders in a folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--skip-existing", help="What to do with results that are there.")
    ] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger images.")] = MAX_PIXELS,
    tile: Annotated[
        int,
        typer.Option(
            min=0, help="Side of tiles in pixels; 0 fits them to memory.", rich_help_panel="Machine"
        ),
    ] = 0,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Tiles processed together.", rich_help_panel="Machine")
    ] = 1,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Restore images; depth, transparency, colour profile and orientation are kept.

    A run that was stopped goes on where it was: finished results are skipped. Under [bold]torchrun[/bold] or
    [bold]accelerate launch[/bold] the images are shared out among the processes.

    [bold]Examples[/bold]

      semanir restore noisy.png -o clean.png --compare

      semanir restore "scans/*.tif" -o clean/ --suffix -clean

      semanir restore photos/ -o photos-clean/ -r --json > report.jsonl

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.
    """
    with user_errors(debug):
        jobs = collect_jobs(
            inputs, output, recursive=recursive, suffix=suffix, file_format=file_format, compare=compare
        )
        from semanir.restorer import Restorer  # torch is slow to import; wrong usage should not wait for it

        restorer = Restorer.from_pretrained(
            model, device=device, dtype=dtype, tile=tile or "auto", batch_size=batch_size
        )
        failed = run_jobs(
            jobs,
            restorer,
            stderr=stderr,
            options={"strength": strength, "k": k, "self_ensemble": self_ensemble},
            overwrite=overwrite,
            max_pixels=max_pixels,
            json_output=json_output,
            debug=debug,
        )
    raise typer.Exit(1 if failed else 0)


@app.command()
def models(json_output: Json = False) -> None:
    """List the models inside this package and what they measured."""
    from semanir.weights import read_card, shipped_models

    cards = {name: read_card(name) for name in shipped_models()}
    if json_output:
        typer.echo(json.dumps(cards))
        return
    table = Table("model", "what it does", "parameters", "gain over the best classical method (dB)")
    for name, card in cards.items():
        gains = card.get("mean_gain_db", {})
        shown = ", ".join(f"{gain:+.2f} at sigma {sigma}" for sigma, gain in gains.items())
        table.add_row(name, card.get("task", ""), f"{card.get('parameters', 0):,}", shown)
    stdout.print(table)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("semanir-demo"),
    photo: Annotated[str, typer.Option(help="chelsea, astronaut, coffee or rocket.")] = "chelsea",
    sigma: Annotated[float, typer.Option(min=0, max=100, help="Noise level, of 255.")] = 25.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    model: Model = "tiny-denoise",
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Add noise to a photograph, take it away again, and show what that is worth.

    Runs offline on the model inside this package and writes noisy.png, baseline.png, restored.png and
    comparison.png.
    """
    with user_errors(debug):
        from semanir.demo import PHOTOS, run_demo
        from semanir.restorer import Restorer

        if photo not in PHOTOS:
            fail(f"no photo {photo!r}: choose one of {', '.join(PHOTOS)}")
        restorer = Restorer.from_pretrained(model, device=device, dtype=dtype)
        with tile_progress(stderr, "restoring") as progress:
            figures = run_demo(restorer, out, photo=photo, sigma=sigma, seed=seed, progress=progress)
    if json_output:
        typer.echo(json.dumps(figures.to_dict()))
        return
    table = Table("", "PSNR (dB)", "SSIM", "seconds", title=f"{photo}, Gaussian noise of sigma {sigma:g}")
    table.add_row("noisy", f"{figures.psnr_noisy:.2f}", f"{figures.ssim_noisy:.3f}", "")
    table.add_row(
        "non-local means (told sigma)",
        f"{figures.psnr_baseline:.2f}",
        f"{figures.ssim_baseline:.3f}",
        f"{figures.seconds_baseline:.1f}",
    )
    table.add_row(
        "SemanIR (blind)",
        f"{figures.psnr:.2f}",
        f"{figures.ssim:.3f}",
        f"{figures.seconds:.1f}",
        style="bold green" if figures.psnr > figures.psnr_baseline else "bold",
    )
    stdout.print(table)
    stdout.print(f"Look at {out / 'comparison.png'}", soft_wrap=True, markup=False)


def _version(wanted: bool) -> None:
    if wanted:
        from semanir import __version__

        typer.echo(f"semanir {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
