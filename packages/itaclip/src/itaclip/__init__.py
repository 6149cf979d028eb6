# SPDX-License-Identifier: Apache-2.0
"""Segments any class you can name, training-free, with CLIP."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from itaclip.config import AttentionConfig, ITACLIPConfig
from itaclip.results import Segmentation

if TYPE_CHECKING:
    from itaclip.model import ITACLIP
    from itaclip.pictures import Overlay
    from itaclip.text.sources import TextSource

__version__ = version("itaclip")

__all__ = [
    "ITACLIP",
    "AttentionConfig",
    "ITACLIPConfig",
    "Overlay",
    "Segmentation",
    "TextSource",
    "__version__",
]

# loaded on first use: open_clip alone takes seconds
_HOMES = {
    "ITACLIP": "itaclip.model",
    "Overlay": "itaclip.pictures",
    "TextSource": "itaclip.text.sources",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
