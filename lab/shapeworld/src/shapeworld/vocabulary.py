# SPDX-License-Identifier: Apache-2.0
"""The kinds of things the world is made of.

In a semantic mask the label of a name is its place in its tuple plus one; 0 is the ground.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "crescent")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "black")
MATERIALS = ("solid", "striped", "dotted", "checked", "wavy", "grainy")
BACKGROUNDS = ("leaves", "gradient", "waves", "clouds", "tiles")

Attribute = Literal["shape", "colour", "material"]
Values = Mapping[Attribute, tuple[str, ...]]
VALUES: Values = {"shape": SHAPES, "colour": COLOURS, "material": MATERIALS}

# RGB in [0, 1], far enough apart that a shade 30 % darker still keeps its name
PALETTE = {
    "red": (0.88, 0.10, 0.12),
    "orange": (1.00, 0.52, 0.04),
    "yellow": (0.97, 0.90, 0.14),
    "green": (0.10, 0.66, 0.18),
    "cyan": (0.12, 0.86, 0.88),
    "blue": (0.12, 0.22, 0.90),
    "purple": (0.52, 0.12, 0.74),
    "pink": (1.00, 0.52, 0.76),
    "white": (0.98, 0.98, 0.98),
    "black": (0.05, 0.05, 0.06),
}

# one pair for each shape; no scene of the splits train, val and test holds any of them
HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("orange", "cross"),
        ("yellow", "heart"),
        ("green", "ring"),
        ("cyan", "crescent"),
        ("blue", "triangle"),
        ("purple", "square"),
        ("pink", "circle"),
    }
)
