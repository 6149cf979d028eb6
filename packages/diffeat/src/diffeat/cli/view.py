# SPDX-License-Identifier: Apache-2.0
"""``diffeat view``: activations as pictures, and as a page to click in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffeat.cli.options import (
    BatchSize,
    Debug,
    Device,
    DtypeOption,
    Images,
    Json,
    Model,
    Names,
    NumNoises,
    PresetOption,
    Prompt,
    Recursive,
    Seed,
    Size,
    Timestep,
    chosen_names,
    find_images,
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


class Kind(StrEnum):
    """What is drawn."""

    PCA = "pca"
    CLUSTERS = "clusters"
    SIMILARITY = "similarity"
    PAGE = "page"


def view(
    model: Model,
    images: Images,
    names: Names = None,
    preset: PresetOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("diffeat-view"),
    kinds: Annotated[
        list[Kind] | None,
        typer.Option(
            "--as", metavar="KIND", help="pca, clusters, similarity, page; may be repeated. \\[pca]"
        ),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="One view of all activations, concatenated, instead of each.")
    ] = False,
    clusters: Annotated[int, typer.Option(min=1, help="Groups of k-means.")] = 6,
    skip: Annotated[
        int, typer.Option(min=0, help="Principal components left out; the first often is object or ground.")
    ] = 0,
    point: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y", help="Pixel of the first image to be similar to; its centre if left out."
        ),
    ] = None,
    t: Timestep = 50,
    prompt: Prompt = "",
    size: Size = None,
    seed: Seed = 0,
    num_noises: NumNoises = 1,
    recursive: Recursive = False,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""Draw activations of a few images: principal components, groups, similarities.

    Colours mean the same in all images of a picture. A page is one HTML file: click
    a place and see how similar every other place of every image is.

    [bold]Examples[/bold]

      diffeat view path/to/sdxl cat.jpg dog.jpg -p Ours-XL --together --as page

      diffeat view tiny-sdxl scenes/ -n "up-level1-repeat?-vit-out" --as pca \
        --as clusters --size 128

    Exit code: 0 done, 2 nothing could be done.
    """
    with user_errors(debug):
        from diffeat.pictures import marked, to_picture

        wanted = chosen_names(names, preset)
        found = find_images(images, recursive=recursive)
        inputs = make_inputs(
            t=t, prompt=prompt, size=size, seed=seed, num_noises=num_noises, batch_size=batch_size
        )
        extractor = load_extractor(model, device=device, dtype=dtype)
        features = read_features(extractor, found, wanted, inputs)
        values = spatial(features)
        if together:
            values = {"together": features.concat()}
        from diffeat.images import load_images

        pictures = [to_picture(load_images(path)[0]) for path in found]
        place = _place(point, pictures[0])
        out.mkdir(parents=True, exist_ok=True)
        files: list[str] = []
        for name, value in values.items():
            title = " + ".join(features) if together else name
            for kind in kinds or [Kind.PCA]:
                files.append(str(out / f"{name}-{kind}.{'html' if kind == Kind.PAGE else 'png'}"))
                if kind == Kind.PAGE:
                    _write_page(files[-1], title, pictures, list(value), found)
                else:
                    drawn, caption = _drawn(kind, list(value), clusters, skip, place)
                    shown = (
                        [marked(pictures[0], place), *pictures[1:]] if kind == Kind.SIMILARITY else pictures
                    )
                    captions = [(path.name, caption, "over the picture") for path in found]
                    _sheet(shown, drawn, captions, title).save(files[-1])
    if json_output:
        typer.echo(json.dumps({"files": files, "names": list(features)}))
    say(f"{count(len(files), 'picture')} of {count(len(found), 'image')} in {out}")


def _place(point: str | None, image: Image.Image) -> tuple[float, float]:
    if point is None:
        return 0.5, 0.5
    x, y = parse_point(point)
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise ValueError(
            f"--point must lie inside the first image, {image.width}x{image.height}, got {point}"
        )
    return (x + 0.5) / image.width, (y + 0.5) / image.height


def _drawn(
    kind: Kind, values: list[Tensor], clusters: int, skip: int, place: tuple[float, float]
) -> tuple[list[Image.Image], str]:
    """A small picture for each image, and what it shows."""
    from diffeat.match import similarity_map
    from diffeat.pictures import cluster_pictures, heat_picture, pca_pictures

    if kind == Kind.PCA:
        return pca_pictures(values, skip=skip), f"principal components {skip + 1} to {skip + 3}"
    if kind == Kind.CLUSTERS:
        return cluster_pictures(values, clusters), f"{clusters} groups"
    maps = [similarity_map(values[0], value, place) for value in values]
    low, high = min(float(each.min()) for each in maps), max(float(each.max()) for each in maps)
    heat = [heat_picture(each, low=low, high=high) for each in maps]
    return heat, f"cosine to the point: {low:.2f} dark, {high:.2f} yellow"


def _sheet(
    pictures: Sequence[Image.Image],
    drawn: Sequence[Image.Image],
    captions: Sequence[tuple[str, str, str]],
    title: str,
) -> Image.Image:
    from diffeat.pictures import overlay, side_by_side, stacked

    rows = [
        side_by_side([picture, overlay(picture, each, opacity=1.0), overlay(picture, each)], captions=words)
        for picture, each, words in zip(pictures, drawn, captions, strict=True)
    ]
    return stacked(rows, title=title)


def _write_page(
    file: str, title: str, pictures: list[Image.Image], values: list[Tensor], paths: Sequence[Path]
) -> None:
    from diffeat.html import similarity_page

    page = similarity_page(pictures, values, title=title, captions=[path.name for path in paths])
    Path(file).write_text(page, "utf-8")
