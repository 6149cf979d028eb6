# SPDX-License-Identifier: Apache-2.0
"""Folder of the model cards."""

from __future__ import annotations

from pathlib import Path

CARDS = Path(__file__).parents[1] / "cards"
