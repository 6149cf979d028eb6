# SPDX-License-Identifier: Apache-2.0
"""``diffeat match``: which place of one image belongs to which place of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffeat.cli.options import (
    Debug,
    Device,
    DtypeOption,
    Json,
    Model,
    Names,
    NumNoises,
    PresetOption,
    Prompt,
    Seed,
    Size,
    Timestep,
    chosen_names,
    load_extractor,
    make_inputs,
    parse_point,
    read_features,
    spatial,
)
from diffeat.cli.output import count, say, user_errors

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

# there and back again, a match of a grid may miss its start by so much of a side, or by a cell
_ROUND_TRIP = 0.05


def match(
    model: Model,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Image with the points.", show_default=False)
    ],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="Image in which they are looked for.", show_default=False)
    ],
    names: Names = None,
    preset: PresetOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Drawing of the matches.")] = Path("matches.png"),
    point: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="Pixel of the source; may be repeated.")
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            help='JSON file {"picture": {"point": \\[x, y]}}; points of both images are judged, too.',
        ),
    ] = None,
    grid: Annotated[
        int,
        typer.Option(min=2, help="Without points: rows and columns of a grid, of which mutual matches stay."),
    ] = 10,
    side: Annotated[
        int | None, typer.Option(min=1, help="Cells that features are brought to; the finest if left out.")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, help="Largest distance of a hit, in sides.")] = 0.1,
    t: Timestep = 50,
    prompt: Prompt = "",
    size: Size = None,
    seed: Seed = 0,
    num_noises: NumNoises = 1,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""Find points of one image in another by nearest neighbours, and draw them.

    [bold]Examples[/bold]

      diffeat match path/to/sdxl cat.jpg dog.jpg -p Ours-XL

      diffeat match path/to/sd21 cat.jpg dog.jpg -n up-level1-upsampler-out \
        -t 261 --num-noises 8 --point 120,80 --point 40,200 -o eyes.png

      diffeat match tiny-sdxl a.png b.png -n up-level1-upsampler-out \
        --points points.json --size 128 --json

    Exit code: 0 done, 2 nothing could be done.
    """
    with user_errors(debug):
        from diffeat.images import load_images
        from diffeat.match import nearest
        from diffeat.pictures import draw_matches, titled, to_picture

        wanted = chosen_names(names, preset)
        if point and points:
            raise ValueError("--point and --points exclude each other")
        pictures = [to_picture(load_images(path)[0]) for path in (source, target)]
        start, truth = _points(source, target, pictures, point, points, grid)
        inputs = make_inputs(t=t, prompt=prompt, size=size, seed=seed, num_noises=num_noises, batch_size=2)
        extractor = load_extractor(model, device=device, dtype=dtype)
        features = read_features(extractor, [source, target], wanted, inputs)
        spatial(features)
        one, other = features.concat(side=side)
        found, similar = nearest(one, other, start)
        if not point and not points:
            back, _ = nearest(other, one, found)
            keep = (back - start).norm(dim=1) <= max(_ROUND_TRIP, 1 / min(one.shape[1:]))
            start, found, similar = start[keep], found[keep], similar[keep]
        right = None if truth is None else _hits(found, truth, pictures[1], threshold)
        figure = "" if right is None else f", {int(right.sum())} of {len(right)} right"
        drawing = draw_matches(pictures[0], pictures[1], start, found, is_right=right)
        _write(
            titled(
                drawing, f"{source.name} to {target.name}: {count(len(start), 'match')}{figure}", indent=12
            ),
            out,
        )
        report = _report(pictures, start, found, similar, right)
    if json_output:
        typer.echo(json.dumps({**report, "file": str(out)}))
    say(f"{count(len(start), 'match')}{figure}, drawn in {out}")


def _points(
    source: Path,
    target: Path,
    pictures: list[Image.Image],
    point: list[str] | None,
    points: Path | None,
    grid: int,
) -> tuple[Tensor, Tensor | None]:
    """Points of the source, and where they lie in the target if that is known, in shares."""
    import torch

    sizes = [torch.tensor([picture.width, picture.height]) for picture in pictures]
    if points is not None:
        from diffeat.ranking import KeypointLabels

        known = KeypointLabels.of([source, target], points).points
        shared = [name for name in known[0] if name in known[1]]
        start, end = (torch.tensor([each[name] for name in shared]) for each in known)
        return start / sizes[0], end / sizes[1]
    if point:
        pixels = torch.tensor([parse_point(each) for each in point])
        if bool((pixels < 0).any() or (pixels > sizes[0]).any()):
            width, height = pictures[0].size
            raise ValueError(f"--point must lie inside {source.name}, {width}x{height} pixels")
        return pixels / sizes[0], None
    steps = (torch.arange(grid) + 0.5) / grid
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1), None


def _hits(found: Tensor, truth: Tensor, picture: Image.Image, threshold: float) -> Tensor:
    import torch

    from diffeat.match import hits

    size = torch.tensor(picture.size)
    return hits(found * size, truth * size, threshold * max(picture.size))


def _report(
    pictures: list[Image.Image], start: Tensor, found: Tensor, similar: Tensor, right: Tensor | None
) -> dict[str, Any]:
    import torch

    sizes = [torch.tensor(picture.size) for picture in pictures]
    rows = zip((start * sizes[0]).tolist(), (found * sizes[1]).tolist(), similar.tolist(), strict=True)
    matches: list[dict[str, Any]] = [
        {"source": [round(v, 2) for v in a], "target": [round(v, 2) for v in b], "similarity": round(s, 4)}
        for a, b, s in rows
    ]
    report: dict[str, Any] = {"matches": matches}
    if right is not None:
        for each, is_right in zip(matches, right.tolist(), strict=True):
            each["right"] = is_right
        report["pck"] = round(float(right.double().mean()), 4)
    return report


def _write(drawing: Image.Image, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    drawing.save(out)
