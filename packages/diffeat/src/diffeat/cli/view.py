# SPDX-License-Identifier: Apache-2.0
"""``diffeat view``: activations as figures, and as a page to click in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from common_kernels.runtime.cli import Output, emit
from cyclopts import Group, Parameter

from diffeat.cli.frame import (
    Extraction,
    Machine,
    Selection,
    check_absent,
    find_images,
    load_extractor,
    note,
    plural,
    write_drawing,
)
from diffeat.cli.spatial import extract_each

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from diffeat.features import Features

Kind = Literal["pca", "clusters", "similarity", "page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOutput(Output):
    """Folder of the drawings.

    Attributes:
        output: Folder of the drawings.
        overwrite: Replace earlier files.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("diffeat-view")

    def __post_init__(self) -> None:
        if self.output.suffix.lower() in {".html", ".png", ".jpg"} and not self.output.is_dir():
            raise ValueError(
                f"--output is a folder of drawings, which have names of their own, got {self.output}"
            )


@Parameter(name="*", group=Group("Drawing", sort_key=3))
@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Kinds and options of the drawings.

    Attributes:
        kind: Principal components, clusters, similarities to a point, or a page to click in; may be repeated.
        together: Whether to draw all activations concatenated instead of each alone.
        clusters: Number of groups of k-means.
        skip: Number of principal components to skip; the first often separates object and background.
        point: Column and row of the reference pixel in the first image; by default its centre.
    """

    kind: tuple[Kind, ...] = ("pca",)
    together: Annotated[bool, Parameter(negative="")] = False
    clusters: int = 6
    skip: int = 0
    point: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.clusters < 1:
            raise ValueError(f"--clusters must be at least 1, got {self.clusters}")
        if self.skip < 0:
            raise ValueError(f"--skip must be at least 0, got {self.skip}")

    def values(self, features: Sequence[Features]) -> dict[str, list[Tensor]]:
        """Return what is drawn by its name: ``(C, h, w)`` of each image."""
        if self.together:
            return {"together": [each.concat()[0] for each in features]}
        return {name: [each[name][0] for each in features] for name in features[0]}


def view(
    inputs: list[str],
    /,
    *,
    output: ViewOutput = ViewOutput(),
    selection: Selection = Selection(),
    drawing: Drawing = Drawing(),
    options: Extraction = Extraction(),
    machine: Machine = Machine(),
    model: str = "tiny-sdxl",
    recursive: Annotated[bool, Parameter(alias="-r", negative="")] = False,
) -> None:
    """Draw activations of a few images: principal components, clusters, similarities.

    Colours are comparable across the images of a drawing. A page is one HTML file: click a point and see how
    similar every other point of every image is.

    **Examples**

        diffeat view cat.jpg dog.jpg --model path/to/sdxl -p Ours-XL --together --kind page
        diffeat view scenes/ -n "up-level1-repeat?-vit-out" --kind pca --kind clusters --size 128

    Args:
        inputs: Files, folders, or quoted globs.
        model: Shipped name, folder or hub id of a pipeline.
        recursive: Whether to search folders below a folder.
    """
    names = selection.chosen()
    from common_kernels.runtime.files import write_text
    from common_kernels.runtime.images import read_rgb

    from diffeat.html import similarity_page
    from diffeat.pictures import draw_overlays, draw_values, mark_point

    paths = find_images(inputs, recursive=recursive)
    extractor = load_extractor(model, machine)
    images = [read_rgb(path) for path in paths]
    point = _share(drawing.point, images[0])
    each = extract_each(extractor, paths, names, options.plain(), machine)
    features = list(each[0])
    values = drawing.values(each)
    files: dict[tuple[str, Kind], Path] = {
        (name, kind): output.output / f"{name}-{kind}.{'html' if kind == 'page' else 'png'}"
        for name in values
        for kind in drawing.kind
    }
    check_absent(*files.values(), overwrite=output.overwrite)
    captions = [path.name for path in paths]
    for (name, kind), file in files.items():
        title = " + ".join(features) if drawing.together else name
        if kind == "page":
            write_text(file, similarity_page(images, values[name], title=title, captions=captions))
            continue
        drawn, caption = draw_values(
            kind, values[name], skip=drawing.skip, clusters=drawing.clusters, point=point
        )
        shown = [mark_point(images[0], point), *images[1:]] if kind == "similarity" else images
        write_drawing(draw_overlays(shown, drawn, captions, caption=caption, title=title), file)
    if output.json:
        emit({"files": list(map(str, files.values())), "names": features})
    note(f"{plural(len(files), 'file')} of {plural(len(paths), 'image')} in {output.output}")


def _share(point: tuple[float, float] | None, image: Image.Image) -> tuple[float, float]:
    """Return a pixel in shares of width and height."""
    if point is None:
        return 0.5, 0.5
    x, y = point
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise ValueError(
            f"--point must lie inside the first image, {image.width}x{image.height}, got {x:g} {y:g}"
        )
    return (x + 0.5) / image.width, (y + 0.5) / image.height
