# SPDX-License-Identifier: Apache-2.0
"""Drawings of an evaluation: an image beside its truth and its prediction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common_kernels.runtime.pictures import LegendEntry, Panel, add_legend, comparison
from PIL import Image
from torch import Tensor

from itaclip.evaluation.datasets import IGNORE
from itaclip.pictures import class_colours, paint
from itaclip.results import Segmentation

_WIDTH, _LINES = 480, 640  # width of a panel, and of an image whose outlines have one pixel
_IGNORED = (255, 255, 255)


def as_segmentation(labels: Tensor, names: Sequence[str], *, background: bool) -> Segmentation:
    """Return labels as a segmentation whose probabilities are 1.

    Args:
        labels: ``(H, W)``, class ids.
        names: Display names of the classes.
        background: Whether class 0 is the background.
    """
    return Segmentation(
        labels=labels.cpu().long(),
        probabilities=torch.ones(labels.shape),
        names=tuple(names),
        background=background,
    )


def draw_sample(
    image: Image.Image,
    truth: Tensor,
    predicted: Tensor,
    names: Sequence[str],
    *,
    background: bool,
    opacity: float = 0.7,
) -> Image.Image:
    """Draw an image, its truth and its prediction side by side, above a legend of the classes in either.

    Args:
        image: RGB.
        truth: ``(H, W)``, class ids; 255 for pixels that do not count, which are shown white.
        predicted: ``(H, W)``, class ids.
        names: Display names of the classes.
        background: Whether class 0 is the background, which is not tinted.
        opacity: Opacity of the colours, in [0, 1].
    """
    ignored = truth == IGNORE
    shown = truth.long().masked_fill(ignored, len(names))
    labelled = as_segmentation(shown, (*names, "does not count"), background=background)
    colours = class_colours(labelled)
    colours[-1] = _IGNORED
    line = max(1, round(max(image.size) / _LINES))
    wrong = float(((predicted != truth) & ~ignored).sum() / (~ignored).sum().clamp(min=1))
    found = as_segmentation(predicted, labelled.names, background=background)
    panels = [
        Panel("image", "", image),
        Panel("truth", "", paint(image, labelled, colours, opacity=opacity, line=line)),
        Panel("prediction", f"{wrong:.0%} wrong", paint(image, found, colours, opacity=opacity, line=line)),
    ]
    entries: list[LegendEntry] = []
    for number in torch.cat([shown.flatten(), found.labels.flatten()]).unique().tolist():
        red, green, blue = (int(value) for value in colours[number])
        tinted = number > 0 or not background
        entries.append(LegendEntry(labelled.names[number], (red, green, blue) if tinted else None))
    return add_legend(comparison(panels, width=_WIDTH), entries)
