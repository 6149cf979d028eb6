# SPDX-License-Identifier: Apache-2.0
"""Scores of generated and edited images and videos, with feature extractors given by the caller.

Nothing is downloaded. Published scores depend on their extractors: FID on the Inception network
of TensorFlow, CLIPSIM and MagicBrush's scores on CLIP ViT-B/32. Scores with another extractor are comparable
with each other only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EditScores", "Embed", "clipsim", "cosine", "edit_scores", "fid", "l1"]

Pixels = NDArray[np.uint8]
Vector = NDArray[np.floating[Any]]


class Embed(NamedTuple):
    """A model that maps images and texts into one space.

    Attributes:
        image: Function that returns the vector of an image ``(H, W, 3)`` uint8.
        text: Function that returns the vector of a text.
    """

    image: Callable[[Pixels], Vector]
    text: Callable[[str], Vector]


class EditScores(NamedTuple):
    """MagicBrush's scores of one edited image.

    Attributes:
        direction: Cosine of the changes of image and caption, "CLIP-dir".
        image: Cosine with the true result, "CLIP-img".
        text: Cosine with the caption of the true result, "CLIP-out".
        l1: Mean absolute difference to the true result, pixels in [0, 1].
    """

    direction: float
    image: float
    text: float
    l1: float


def cosine(a: Vector, b: Vector) -> float:
    """Return the cosine of two vectors, 0 if one of them is zero."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return (
        float(np.dot(np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()) / norm)
        if norm
        else 0.0
    )


def l1(found: Pixels, true: Pixels) -> float:
    """Return the mean absolute difference of two images, values in [0, 1].

    Raises:
        ValueError: If shapes differ.
    """
    if found.shape != true.shape:
        raise ValueError(f"images must have one shape, got {found.shape} and {true.shape}")
    return float(np.abs(found.astype(np.float64) - true).mean() / 255)


def clipsim(video: Iterable[Pixels], text: str, embed: Embed) -> float:
    """Return the mean cosine of the frames of a video with a text.

    Args:
        video: Frames ``(H, W, 3)``, uint8.
        text: Prompt.
        embed: Model.
    """
    prompt = embed.text(text)
    scores = [cosine(embed.image(frame), prompt) for frame in video]
    if not scores:
        raise ValueError("a video must have at least one frame, got none")
    return float(np.mean(scores))


def edit_scores(
    source: Pixels, found: Pixels, true: Pixels, captions: tuple[str, str], embed: Embed
) -> EditScores:
    """Score an edited image as MagicBrush does.

    Args:
        source: Image before the edit.
        found: Edited image.
        true: True edited image; ``found`` must have its size.
        captions: Captions of ``source`` and of ``true``.
        embed: Model.
    """
    before, after, aim = (embed.image(each) for each in (source, found, true))
    caption_before, caption_after = (embed.text(each) for each in captions)
    return EditScores(
        direction=cosine(np.asarray(after) - before, np.asarray(caption_after) - caption_before),
        image=cosine(after, aim),
        text=cosine(after, caption_after),
        l1=l1(found, true),
    )


def fid(found: Sequence[Pixels], true: Sequence[Pixels], extractor: Any, num_features: int) -> float:
    """Return the Fréchet distance between the features of two sets of images, by torchmetrics.

    Args:
        found: Generated images, ``(H, W, 3)`` uint8, all of one size.
        true: Real images, all of one size.
        extractor: A :class:`torch.nn.Module` that takes ``(B, 3, H, W)`` uint8 and returns
            ``(B, num_features)``.
        num_features: Number of features; a set needs more images than that for a distance without bias.

    Raises:
        ImportError: If torchmetrics is not installed.
        ValueError: If a set has fewer than two images.
    """
    if min(len(found), len(true)) < 2:
        raise ValueError(f"FID needs at least two images on both sides, got {len(found)} and {len(true)}")
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise ImportError('FID needs torchmetrics: pip install "vitron[evaluate]"') from error
    extractor.num_features = num_features
    metric: Any = FrechetInceptionDistance(feature=extractor, normalize=False)
    metric.set_dtype(_double())
    for images, real in ((found, False), (true, True)):
        for image in images:
            metric.update(_batch(image), real=real)
    return float(metric.compute())


def _double() -> Any:
    import torch

    return torch.float64


def _batch(image: Pixels) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
