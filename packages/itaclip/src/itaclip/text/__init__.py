# SPDX-License-Identifier: Apache-2.0
"""The text side: class names, auxiliary texts, prompts and their embeddings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from itaclip.text.classes import ClassList, shipped_classes
from itaclip.text.files import TextFileError
from itaclip.text.sources import (
    CallableSource,
    FileSource,
    MappingSource,
    TextSource,
    as_source,
    aux_texts,
    shipped_texts,
)

if TYPE_CHECKING:
    from itaclip.text.answers import Task
    from itaclip.text.embed import TextEmbedder, text_features
    from itaclip.text.llm import LLMSource
    from itaclip.text.prompts import PromptTooLongError, get_templates
    from itaclip.text.store import default_cache

__all__ = [
    "CallableSource",
    "ClassList",
    "FileSource",
    "LLMSource",
    "MappingSource",
    "PromptTooLongError",
    "Task",
    "TextEmbedder",
    "TextFileError",
    "TextSource",
    "as_source",
    "aux_texts",
    "default_cache",
    "get_templates",
    "shipped_classes",
    "shipped_texts",
    "text_features",
]

# loaded on first use: torch takes a second, and reading names and files needs none of it
_HOMES = {
    "LLMSource": "itaclip.text.llm",
    "PromptTooLongError": "itaclip.text.prompts",
    "Task": "itaclip.text.answers",
    "TextEmbedder": "itaclip.text.embed",
    "default_cache": "itaclip.text.store",
    "get_templates": "itaclip.text.prompts",
    "text_features": "itaclip.text.embed",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
