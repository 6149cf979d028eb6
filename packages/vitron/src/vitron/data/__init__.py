# SPDX-License-Identifier: Apache-2.0
"""Dialogues with pictures, clips, regions and calls: what models read and learn from."""

from vitron.data.converters import read_layout
from vitron.data.example import Example
from vitron.data.files import read_example, read_samples, write_samples
from vitron.data.schema import Sample

__all__ = [
    "Example",
    "Sample",
    "read_example",
    "read_layout",
    "read_samples",
    "write_samples",
]
