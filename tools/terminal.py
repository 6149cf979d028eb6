# SPDX-License-Identifier: Apache-2.0
"""Draws what commands print, as SVG for the pages: ``terminal.py [NAME...]``, with the packages installed.

Each command of :data:`SCREENS` runs as it stands in a folder with the images of :func:`make_inputs`.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "assets" / "terminal"
WIDTH = 100  # characters
SCREENS = {
    "semanir": [
        "semanir restore noisy.png coffee.png -o clean/",
        "semanir restore noisy.png coffee.png -o clean/",
    ],
    "itaclip": [
        "itaclip segment scene.png -c 'cyan thing, blue thing, red thing' --background -o scene.html"
    ],
    "diffeat": ["diffeat names 'up-level1-*-cross-q'"],
    "vitron": ["echo 'segment the green circle' | vitron chat drawn.png"],
    "common-kernels": ["python -m common_kernels.info"],
}
# fonts of the reader's machine: pages load nothing from elsewhere
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def make_inputs(folder: Path) -> None:
    """Write the images that the commands read."""
    import numpy as np
    from PIL import Image
    from skimage import data

    cat = data.chelsea()[40:240, 60:320]
    noise = np.random.default_rng(0).normal(0, 25, cat.shape)
    Image.fromarray(np.clip(cat + noise, 0, 255).astype(np.uint8)).save(folder / "noisy.png")
    Image.fromarray(data.coffee()[:200, :200]).save(folder / "coffee.png")
    shipped = {
        "scene.png": ("itaclip", "scenes/scene-1.png"),
        "drawn.png": ("vitron", "demo/conversation-1-0.png"),
    }
    for name, (package, image) in shipped.items():
        (folder / name).write_bytes((files(package) / "assets" / image).read_bytes())


def draw(name: str, commands: list[str]) -> str:
    """Run commands and return what a terminal shows, as SVG.

    Raises:
        CalledProcessError: If one fails.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    colours = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TTY_INTERACTIVE": "0"}
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder))
        for command in commands:
            done = subprocess.run(
                command, shell=True, cwd=folder, check=True, text=True, env=os.environ | colours,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text.from_ansi(done.stdout.strip()))
    svg = FONT_FACE.sub("", console.export_svg(title=name, unique_id=f"terminal-{name}"))
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def main() -> int:
    """Draw the screens that the arguments name, all if there are none."""
    names = sys.argv[1:] or list(SCREENS)
    if unknown := [name for name in names if name not in SCREENS]:
        sys.stderr.write(f"no screen of {', '.join(unknown)}; there are {', '.join(SCREENS)}\n")
        return 2
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        file = FOLDER / f"{name}.svg"
        file.write_text(draw(name, SCREENS[name]), "utf-8")
        sys.stdout.write(f"{file.name}: {file.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
