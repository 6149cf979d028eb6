# SPDX-License-Identifier: Apache-2.0
"""Where the cards of the shipped models lie."""

from __future__ import annotations

from pathlib import Path

CARDS = Path(__file__).parents[1] / "cards"
