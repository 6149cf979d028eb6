# SPDX-License-Identifier: Apache-2.0
"""Helpers of the charts; they need the extra ``chart``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

# distinguishable for most colour-blind readers; after Okabe and Ito
_COLOURS = {
    "inter-module": "#0072B2",
    "res-internal": "#E69F00",
    "vit-block": "#009E73",
    "self-attention": "#CC79A7",
    "cross-attention": "#D55E00",
    "feed-forward": "#F0E442",
    "ends": "#000000",
    "set": "#56B4E9",
}
_OTHER = "#999999"


def colour_of(family: str) -> str:
    """Colour of a family of activations."""
    return _COLOURS.get(family, _OTHER)


def figure(size: tuple[float, float]) -> Any:
    """An empty matplotlib figure; no global state of matplotlib is touched.

    Args:
        size: Width and height in inches.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("charts need the extra 'chart': pip install 'diffeat[chart]'") from error
    return Figure(figsize=size, layout="constrained")


def legend(axes: Any, families: Iterable[str]) -> None:
    """Add the legend of the families."""
    from matplotlib.patches import Patch

    shown = list(dict.fromkeys(families))
    patches = [Patch(color=colour_of(family), label=family) for family in shown]
    if len(shown) > 1:
        axes.legend(handles=patches, fontsize=7, loc="lower right")


def save(sheet: Any, path: str | Path) -> None:
    """Write a figure.

    Args:
        sheet: The figure.
        path: PNG, PDF or SVG.
    """
    sheet.savefig(path, dpi=150)
