# SPDX-License-Identifier: Apache-2.0
"""Dialogues with pictures, clips, regions and calls: what models read and learn from."""

from vitron.data.example import Example, MediaPart, Message, Part, PlacedRegion, RegionPart, TextPart, plain

__all__ = ["Example", "MediaPart", "Message", "Part", "PlacedRegion", "RegionPart", "TextPart", "plain"]
