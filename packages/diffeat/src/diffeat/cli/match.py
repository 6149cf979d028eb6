# SPDX-License-Identifier: Apache-2.0
"""``diffeat match``: corresponding points of two images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import Output, emit
from cyclopts import Group, Parameter

from diffeat.cli.frame import (
    MATCHING,
    Extraction,
    Machine,
    Matching,
    Selection,
    check_absent,
    load_extractor,
    note,
    plural,
    write_drawing,
)
from diffeat.cli.spatial import extract_each

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from diffeat.match import Matches


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchOutput(Output):
    """File of the drawing.

    Attributes:
        output: File of the drawing.
        overwrite: Replace an earlier file.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("matches.png")


@Parameter(name="*", group=Group("Points", sort_key=3))
@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Points of the source, and their evaluation.

    Attributes:
        point: Column and row of a pixel of the source; may be repeated.
        points: JSON file {"image": {"point": [x, y]}}; points in both images are also scored.
        grid: Rows and columns of a grid of points, used without given points; mutual matches are kept.
        side: Cells of the shorter side to which features are resized; by default that of the finest.
        threshold: Largest distance of a hit, in larger sides of the image.
    """

    point: list[tuple[float, float]] | None = None
    points: Path | None = None
    grid: int = 10
    side: int | None = None
    threshold: float = 0.1

    def __post_init__(self) -> None:
        if self.point and self.points:
            raise ValueError("--point and --points exclude each other")
        if self.grid < 2:
            raise ValueError(f"--grid must be at least 2, got {self.grid}")


@Parameter(name="*", group=MATCHING)
@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnMatching(Matching):
    """The way points of two images are found.

    Attributes:
        tower: Model of timm, such as vit_base_patch14_dinov2, whose features are joined as unit vectors.
        tower_weights: Safetensors file with the tower's weights; by default timm fetches them.
        tower_share: Weight of the tower; the rest is that of the diffusion model.
        flip: Whether to try the source mirrored too, for objects that look the other way; needs points.
    """

    tower: str | None = None
    tower_weights: Path | None = None
    tower_share: float = 0.5
    flip: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self) -> None:
        Matching.__post_init__(self)  # the zero-argument super() fails in a dataclass with slots
        if not 0 < self.tower_share < 1:
            raise ValueError(f"--tower-share must lie between 0 and 1, got {self.tower_share}")

    def prepare(self, images: list[Image.Image]) -> list[Image.Image]:
        """Return the images whose features are needed."""
        from PIL import ImageOps

        return [*images, ImageOps.mirror(images[0])] if self.flip else images

    def find(self, maps: list[Tensor], start: Tensor | None, grid: int) -> Matches:
        """Return the places of points in the target, or mutual matches of a grid without any.

        Args:
            maps: Features ``(C, h, w)`` of source and target, and of the mirrored source with ``flip``.
            start: Points of the source in shares.
            grid: Rows and columns of the grid.
        """
        from diffeat.match import find_mutual, find_points, find_points_flipped

        if start is None:
            return find_mutual(maps[0], maps[1], grid, self.soft())
        if self.flip:
            return find_points_flipped(maps[0], maps[2], maps[1], start, self.soft())
        return find_points(maps[0], maps[1], start, self.soft())


def match(
    source: Path,
    target: Path,
    /,
    *,
    output: MatchOutput = MatchOutput(),
    selection: Selection = Selection(),
    points: Points = Points(),
    matching: DrawnMatching = DrawnMatching(),
    options: Extraction = Extraction(),
    machine: Machine = Machine(),
    model: str = "tiny-sdxl",
) -> None:
    """Find the points of one image in another by nearest neighbours, and draw them.

    **Examples**

        diffeat match cat.jpg dog.jpg --model path/to/sdxl -p Ours-XL
        diffeat match cat.jpg dog.jpg --model path/to/sd21 -n up-level1-upsampler-out -t 261 --num-noises 8
        diffeat match a.png b.png -n up-level1-upsampler-out --point 120 80 --point 40 200 -o eyes.png
        diffeat match a.png b.png -n up-level1-upsampler-out --points points.json --size 128 --json
        diffeat match cat.jpg dog.jpg --model path/to/sd15 -p DIFT --tower vit_base_patch14_dinov2
        diffeat match cat.jpg dog.jpg --model path/to/sd15 --head hyper/head.safetensors --window 5

    Args:
        source: Image with the given points.
        target: Image to search.
        model: Shipped name, folder or hub id of a pipeline.
    """
    if matching.flip and not (points.point or points.points):
        raise ValueError("--flip needs --point or --points: a grid of points has no one way round")
    check_absent(output.output, overwrite=output.overwrite)
    head, names, plain = matching.reading(selection, options)
    from common_kernels.runtime.images import read_rgb
    from common_kernels.runtime.pictures import add_title

    from diffeat.pictures import draw_matches

    images = [read_rgb(path) for path in (source, target)]
    start, truth = _points(points, [source, target], images)
    extractor = load_extractor(model, machine)
    chosen = matching.prepare(images)
    each = extract_each(extractor, chosen, names, plain, machine)
    maps = [one.concat(side=points.side)[0] if head is None else head.of_image(one) for one in each]
    if matching.tower is not None:
        maps = _fused(maps, chosen, matching, machine)
    found = matching.find(maps, start, points.grid)
    if truth is not None:
        found = found.judged(truth, images[1].size, points.threshold)
    figure = "" if found.is_right is None else f", {int(found.is_right.sum())} of {len(found)} correct"
    drawing = draw_matches(images[0], images[1], found.source, found.target, is_right=found.is_right)
    title = f"{source.name} to {target.name}: {plural(len(found), 'match')}{figure}"
    write_drawing(add_title(drawing, title, indent=12), output.output)
    if output.json:
        report = {"matches": found.to_list(images[0].size, images[1].size), "output": str(output.output)}
        emit(report if found.is_right is None else {**report, "pck": round(found.pck, 4)})
    note(f"{plural(len(found), 'match')}{figure}, drawn in {output.output}")


def _fused(
    maps: list[Tensor], images: list[Image.Image], matching: DrawnMatching, machine: Machine
) -> list[Tensor]:
    """Features ``(C, h, w)`` beside those of the tower."""
    from diffeat.fusion import Tower, fuse

    assert matching.tower is not None
    tower = Tower.from_pretrained(matching.tower, checkpoint=matching.tower_weights, device=machine.device)
    weights = (1 - matching.tower_share, matching.tower_share)
    return [
        fuse([one[None], tower(image, max(one.shape[1:]))], weights)[0]
        for one, image in zip(maps, images, strict=True)
    ]


def _points(
    points: Points, paths: list[Path], images: list[Image.Image]
) -> tuple[Tensor | None, Tensor | None]:
    """Return points of the source, and their true positions in the target if known, in shares."""
    import torch

    sizes = [torch.tensor(image.size) for image in images]
    if points.points is not None:
        from diffeat.ranking.labels import KeypointLabels

        known = KeypointLabels.of(paths, points.points).points
        shared = [name for name in known[0] if name in known[1]]
        start, end = (torch.tensor([each[name] for name in shared]) for each in known)
        return start / sizes[0], end / sizes[1]
    if not points.point:
        return None, None
    pixels = torch.tensor(points.point)
    if bool((pixels < 0).any() or (pixels > sizes[0]).any()):
        width, height = images[0].size
        raise ValueError(f"--point must lie inside {paths[0].name}, {width}x{height} pixels")
    return pixels / sizes[0], None
