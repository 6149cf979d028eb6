# SPDX-License-Identifier: Apache-2.0
"""``itaclip video``: a video in, a video of overlays out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from itaclip.cli.options import (
    Background,
    BackgroundFirst,
    BatchSize,
    Cache,
    Classes,
    Debug,
    Device,
    DTypeOption,
    Json,
    Model,
    ModelOptions,
    Overwrite,
    Preset,
    Pretrained,
    Settings,
    Texts,
    find_texts,
    parse_classes,
)
from itaclip.cli.output import fail, one_line, stdout, steps, user_errors, warn


def video(
    source: Annotated[Path, typer.Argument(help="A video file.", metavar="IN")],
    output: Annotated[Path, typer.Option("--output", "-o", help="An .mp4 file.")],
    classes: Classes,
    background: Background = None,
    texts: Texts = None,
    background_first: BackgroundFirst = False,
    smoothing: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the past in each frame; 0 takes frames alone.")
    ] = 0.6,
    every: Annotated[
        int, typer.Option(min=1, help="Segment each so-manieth frame; those between keep its labels.")
    ] = 1,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    max_side: Annotated[int, typer.Option(min=16, help="Long side of the frames, in pixels.")] = 1280,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the colours on the picture.")] = 0.55,
    legend: Annotated[bool, typer.Option(help="List the classes below the picture.")] = True,
    labels: Annotated[
        Path | None, typer.Option(help="Also write the label maps of all frames, as .npz.")
    ] = None,
    overwrite: Overwrite = False,
    model: Model = "tiny-shapes",
    pretrained: Pretrained = None,
    preset: Preset = "auto",
    settings: Settings = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    cache: Cache = True,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""Segment a video by the classes you name; H.264 in MP4, without sound.

    Labels that flicker are steadied by an exponential mean of the
    probabilities, which starts anew where the picture changes at once.
    Needs PyAV: pip install "itaclip\[video]".

    [bold]Examples[/bold]

      itaclip video clip.mp4 -c "person, dog, grass, sky" -o out.mp4 \
        --model ViT-B-16 --pretrained openai

      itaclip video clip.mov -c classes.txt -o out.mp4 --every 5 \
        --preset fast --labels labels.npz --model ./my-clip

    Exit code: 0 done, 1 the video failed, 2 nothing could be done.
    """
    with user_errors(debug):
        from itaclip.config import VideoOptions
        from itaclip.images import ImageError
        from itaclip.video import import_av, segment_video

        import_av()
        if output.suffix.lower() != ".mp4":
            fail(f"--output must be an .mp4 file, got {output}")
        if labels is not None and labels.suffix.lower() != ".npz":
            fail(f"--labels must be an .npz file, got {labels}")
        if output.exists() and source.exists() and output.samefile(source):
            fail(f"{output} is the video itself: give another name")
        if output.exists() and not overwrite:
            warn(f"{output} is there already, skipped (--overwrite replaces it)", style="dim")
            if json_output:
                typer.echo(json.dumps({"input": str(source), "output": str(output), "status": "skipped"}))
            raise typer.Exit(0)
        how = VideoOptions(
            smoothing=smoothing,
            every=every,
            max_side=max_side,
            max_frames=max_frames,
            opacity=opacity,
            legend=legend,
        )
        chosen = parse_classes(classes, background=background, background_first=background_first)
        options = ModelOptions(
            model=model,
            pretrained=pretrained,
            preset=preset,
            settings=settings or (),
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            cache=cache,
        )
        segmenter = options.load(options.config()).set_classes(chosen, aux=find_texts(texts, classes))
        start = time.perf_counter()
        entry: dict[str, object] = {"input": str(source), "output": str(output)}
        try:
            with steps("frames") as progress:
                report = segment_video(
                    segmenter, source, output, options=how, labels=labels, progress=progress
                )
        except (ImageError, MemoryError, RuntimeError) as error:
            if debug:
                raise
            warn(one_line(error), style="red")
            if json_output:
                typer.echo(json.dumps({**entry, "status": "failed", "error": one_line(error)}))
            raise typer.Exit(1) from None
    shares = {name: round(share, 5) for name, share in report.shares.items()}
    entry |= {"status": "segmented", "frames": report.frames, "segmented": report.segmented}
    entry |= {"cuts": report.cuts, "classes": shares, "seconds": round(time.perf_counter() - start, 3)}
    if json_output:
        typer.echo(json.dumps(entry, ensure_ascii=False))
    else:
        stdout.print(f"{output}: {report.frames} frames", soft_wrap=True, markup=False, highlight=False)
