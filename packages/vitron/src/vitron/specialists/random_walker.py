# SPDX-License-Identifier: Apache-2.0
"""Segmentation of the object in a region by colours and edges alone: no weights, any image."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import (
    BoxRegion,
    MaskRegion,
    PointsRegion,
    Region,
    ScribbleRegion,
    SpecialistSpec,
)
from vitron.protocol.media import Artefact
from vitron.protocol.regions.raster import rasterise
from vitron.specialists.instances import is_plural, label_of
from vitron.specialists.protocol import Request, Result

__all__ = ["RandomWalkerSegmenter", "StrokeKind", "read_strokes", "seeds_of", "segment_region"]

# All were chosen on photographic composites of the validation split; see docs/vitron/specialists.md.
SIDE = 96  # pixels of the longer side on which the walk happens
BETA = 8.0  # how much a step across an edge costs
PRIOR = 0.1  # weight of the colours beside that of the neighbours
COLOURS = 5  # Gaussians of the colours of object and background
ROUNDS = 4  # most repetitions of: colours, then the walk
MARGIN = 0.15  # of a drawn outline's radius: so far the object may end beside it
REACH_POINT = 0.3  # of the longer side: as far from a click the object may extend
REACH_SCRIBBLE = 0.5  # of the scribble's extent: as far from it the object may extend
REACH_SHORT = 0.125  # of the longer side: the same, where the scribble is short
AROUND = 1.5  # a line that encloses so many times its own area goes around the object
DAB = 0.005  # share of the image up to which what is painted is a point
BRUSH = 0.04  # of the longer side: largest radius of a line
LIMIT = 8.0  # of the log-likelihood ratio, so that no colour decides alone
CERTAIN = 1e3  # weight of the pixels that the region decides

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
StrokeKind = Literal["point", "stroke", "outline", "area"]


class Seeds(NamedTuple):
    """What a region says about the pixels of an image, each ``(H, W)``.

    Attributes:
        inside: Pixels that are certainly the object's.
        outside: Pixels that are certainly not.
        start: First guess of the object.
    """

    inside: Mask
    outside: Mask
    start: Mask


class RandomWalkerSegmenter:
    """Specialist that segments the object in a region by random walks with colour models as priors.

    A pixel belongs to the object if a random walk from it, which avoids edges, more probably ends at the
    object (Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005). The colour
    models are estimated anew from each result, as in GrabCut.
    """

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        return SpecialistSpec(
            name="random-walker",
            summary="segments the object in a region by its colours and edges, on any image",
            tasks=("image_segmentation",),
            inputs=("image",),
            outputs=("masks",),
            licence="Apache-2.0",
        )

    def load(self, device: str, dtype: str) -> None:
        """Do nothing: there are no weights."""

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Segment the object in the user's region; see :class:`vitron.specialists.Specialist`.

        Raises:
            UnsupportedRequestError: If there is no region of the user, or several objects are meant.
        """
        media, region = request.media, request.region
        if media is None or region is None or is_plural(request):
            raise UnsupportedRequestError(
                "random-walker segments one object in a region: draw a box or click it"
            )
        mask = segment_region(media.frames[0], region, seed=seed)
        if not mask.any():
            raise UnsupportedRequestError("random-walker finds no object in the region")
        note = "segmented by colours and edges in the region"
        return Result(Artefact("masks", mask[None, None], (label_of(request),)), note=note)

    def unload(self) -> None:
        """Do nothing: there are no weights."""


def segment_region(image: NDArray[np.uint8], region: Region, *, seed: int = 0) -> Mask:
    """Return the object in a region.

    Args:
        image: ``(H, W, 3)``.
        region: Box or outline around the object, or points or strokes on it.
        seed: Random seed of the first colours.

    Returns:
        ``(H, W)``. Of several connected parts those that the region is certain of, or else the large ones;
        holes are filled.
    """
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    small = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX))
    seeds = seeds_of(region, rows, columns)
    found = _clean(_walk(small / 255.0, seeds, np.random.default_rng(seed)), seeds)
    grey = Image.fromarray(found.astype(np.uint8) * 255)
    return np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR)) > 127


def read_strokes(mask: Mask) -> tuple[StrokeKind, Mask]:
    """Return what somebody meant who painted a mask with a brush.

    Args:
        mask: What was painted, ``(H, W)``.

    Returns:
        ``"point"`` for a dab, ``"stroke"`` for a line on the object, ``"outline"`` for a line around it, with
        what is inside of it, and ``"area"`` for all else, which is the object itself.
    """
    from scipy import ndimage  # slow to import and rarely needed

    area, filled = int(mask.sum()), np.asarray(ndimage.binary_fill_holes(mask))
    if filled.sum() > AROUND * area:
        return "outline", filled
    if area <= DAB * mask.size:
        return "point", mask
    thickness = float(np.max(ndimage.distance_transform_edt(np.pad(mask, 1))))
    return ("stroke" if thickness <= BRUSH * max(mask.shape) else "area"), mask


def seeds_of(region: Region, height: int, width: int) -> Seeds:
    """Return which pixels a region decides.

    Nothing outside of a box belongs to the object. A drawn outline may be off by 15 % of its radius. Points
    and strokes lie on the object, which ends at some distance from them; points that are not positive lie
    beside it. Of what was painted with a brush see :func:`read_strokes`.
    """
    drawn, nothing = rasterise(region, height, width, patch=0), np.zeros((height, width), dtype=np.bool_)
    match region:
        case BoxRegion():
            return Seeds(nothing, ~drawn, drawn)
        case PointsRegion():
            beside = nothing
            if region.positive:
                signs = zip(region.points, region.positive, strict=True)
                others = tuple(point for point, sign in signs if not sign)
                beside = rasterise(PointsRegion(points=others), height, width, patch=0) & ~drawn
            return _on(drawn, "point", beside)
        case ScribbleRegion():
            return _on(drawn, "stroke", nothing)
        case MaskRegion(brush=True):
            kind, drawn = read_strokes(drawn)
            if kind == "outline":  # a brush goes around an object at some distance, as a box does
                return Seeds(nothing, ~drawn, drawn)
            return _around(drawn) if kind == "area" else _on(drawn, kind, nothing)
        case _:
            return _around(drawn)


def _around(drawn: Mask) -> Seeds:
    """Return the seeds of an outline."""
    from scipy import ndimage

    reach = max(1, round(float(np.sqrt(drawn.sum() / np.pi)) * MARGIN))
    inside = ndimage.binary_erosion(drawn, iterations=reach)
    near = ndimage.binary_dilation(drawn, iterations=reach)
    return Seeds(np.asarray(inside), ~np.asarray(near), drawn)


def _on(drawn: Mask, kind: StrokeKind, beside: Mask) -> Seeds:
    """Return the seeds of points or strokes on the object, and of points beside it."""
    from scipy import ndimage

    if not drawn.any():
        return Seeds(drawn, ~drawn, drawn)
    (ys, xs), longer = np.nonzero(drawn), max(drawn.shape)
    extent = max(float(np.ptp(ys)), float(np.ptp(xs)))
    far = REACH_POINT * longer if kind == "point" else max(REACH_SCRIBBLE * extent, REACH_SHORT * longer)
    reach, outside = max(2, round(far)), np.ones_like(drawn)
    outside[
        max(0, ys.min() - reach) : ys.max() + reach + 1, max(0, xs.min() - reach) : xs.max() + reach + 1
    ] = False
    outside |= beside
    start = np.asarray(ndimage.binary_dilation(drawn, iterations=2)) & ~outside
    return Seeds(drawn, outside, start | drawn)


def _walk(image: Floats, seeds: Seeds, rng: np.random.Generator) -> Mask:
    """Return the object in an image ``(H, W, 3)`` of values 0 to 1."""
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    pixels, laplacian = image.reshape(-1, 3), _laplacian(image)
    certain = np.where((seeds.inside | seeds.outside).ravel(), CERTAIN, 0.0)
    system: Any = (laplacian + sparse.diags(PRIOR + certain)).tocsc()
    current = seeds.start
    for turn in range(ROUNDS):
        # at first, what lies in a box is not yet known, but what lies outside of it is
        known = turn == 0 and seeds.outside.mean() >= 0.1
        background = seeds.outside if known else ~current
        if not current.any() or not background.any():
            return current
        ratio = _log_likelihood(pixels, pixels[current.ravel()], rng) - _log_likelihood(
            pixels, pixels[background.ravel()], rng
        )
        prior = 1 / (1 + np.exp(-np.clip(ratio, -LIMIT, LIMIT)))
        potential = spsolve(system, PRIOR * prior + certain * seeds.inside.ravel())
        found = np.asarray(potential.reshape(current.shape) > 0.5) & ~seeds.outside | seeds.inside
        if (found == current).all():
            break
        current = found
    return current


def _log_likelihood(pixels: Floats, samples: Floats, rng: np.random.Generator) -> Floats:
    """Return the log-likelihood of pixels ``(N, 3)`` in a Gaussian mixture of samples ``(M, 3)``."""
    from scipy.cluster.vq import kmeans, vq

    centres, _ = kmeans(samples, min(COLOURS, len(np.unique(samples, axis=0))), iter=3, seed=rng)
    nearest, _ = vq(samples, centres)
    terms = list[Floats]()
    for number in np.unique(nearest):
        part = samples[nearest == number]
        mean = part.mean(0)
        covariance = (part - mean).T @ (part - mean) / len(part) + 0.02**2 * np.eye(3)
        beside = pixels - mean
        distance = np.einsum("ij,jk,ik->i", beside, np.linalg.inv(covariance), beside)
        terms.append(np.log(len(part) / len(samples)) - 0.5 * (np.linalg.slogdet(covariance)[1] + distance))
    return np.logaddexp.reduce(terms, axis=0)


def _laplacian(image: Floats) -> Any:
    """Return the sparse Laplacian of the graph of pixels and their eight neighbours, weighted by likeness."""
    from scipy import sparse

    height, width = image.shape[:2]
    index, colours = np.arange(height * width).reshape(height, width), image.reshape(-1, 3)
    pairs, lengths = list[NDArray[np.int64]](), list[Floats]()
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = index[: height - down, max(0, -right) : width - max(0, right)].ravel()
        other = index[down:, max(0, right) : width + min(0, right)].ravel()
        pairs.append(np.stack([one, other]))
        lengths.append(np.full(one.size, np.hypot(down, right)))
    (one, other), length = np.concatenate(pairs, axis=1), np.concatenate(lengths)
    difference = ((colours[one] - colours[other]) ** 2).sum(1)
    spread = float(difference.mean()) if difference.size else 0.0
    weight = np.exp(-BETA * difference / (2 * spread + 1e-12)) / length + 1e-4
    ends = np.concatenate([one, other]), np.concatenate([other, one])
    joined: Any = sparse.coo_matrix((np.concatenate([weight, weight]), ends), shape=(index.size, index.size))
    return sparse.diags(np.asarray(joined.sum(1)).ravel()) - joined.tocsr()


def _clean(found: Mask, seeds: Seeds) -> Mask:
    """Return the parts of a mask that the seeds touch, without seeds the large ones; holes are filled."""
    from scipy import ndimage

    labelled: Any = ndimage.label(found)
    parts, count = labelled
    if count > 1:
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        touched = np.unique(parts[seeds.inside & found])
        kept = touched[touched > 0] if seeds.inside.any() else 1 + np.flatnonzero(sizes >= 0.2 * sizes.max())
        found = np.isin(parts, kept)
    return np.asarray(ndimage.binary_fill_holes(found)) & ~seeds.outside
