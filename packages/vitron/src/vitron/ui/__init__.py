# SPDX-License-Identifier: Apache-2.0
"""A web page for conversations about images and videos; needs the extra ``vitron[ui]``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitron.ui.page import build_page, launch

__all__ = ["build_page", "launch"]


def __getattr__(name: str) -> object:
    # Gradio takes seconds to import
    if name in __all__:
        return getattr(import_module("vitron.ui.page"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
