# SPDX-License-Identifier: Apache-2.0
"""The text side: class names, auxiliary texts, prompts and their embeddings."""

from itaclip.text.classes import ClassList, shipped_classes
from itaclip.text.embed import TextEmbedder, text_features
from itaclip.text.files import TextFileError
from itaclip.text.prompts import PromptTooLongError, get_templates
from itaclip.text.sources import (
    CallableSource,
    FileSource,
    MappingSource,
    NoSource,
    TextSource,
    as_source,
    aux_texts,
    shipped_texts,
)
from itaclip.text.store import default_cache

__all__ = [
    "CallableSource",
    "ClassList",
    "FileSource",
    "MappingSource",
    "NoSource",
    "PromptTooLongError",
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
