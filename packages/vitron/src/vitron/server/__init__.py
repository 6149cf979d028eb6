# SPDX-License-Identifier: Apache-2.0
"""A server with the shape of OpenAI's interface; needs the extra ``vitron[server]``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vitron.server.limits import Limits

if TYPE_CHECKING:
    from vitron.server.app import create_app

__all__ = ["Limits", "create_app"]


def __getattr__(name: str) -> object:
    # FastAPI is an extra: whoever only reads the limits needs none
    if name == "create_app":
        return getattr(import_module("vitron.server.app"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
