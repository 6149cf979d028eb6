# SPDX-License-Identifier: Apache-2.0
"""Lets the site show the examples of docstrings as code."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Griffe knows ``Examples:`` as a section of doctests, and our docstrings say ``Example:``."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rename the section where an object has one."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
