# SPDX-License-Identifier: Apache-2.0
"""A page that zooms through a Deep Zoom image, without any library or network."""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from common_kernels.runtime.files import write_text

from pixelsmith.io.dzi import files_folder

_FIELDS = {
    "width": r'Width="(\d+)"',
    "height": r'Height="(\d+)"',
    "tile": r'TileSize="(\d+)"',
    "overlap": r'Overlap="(\d+)"',
    "format": r'Format="(\w+)"',
}


def write_viewer(path: Path, *, title: str | None = None) -> Path:
    """Write the page beside a ``.dzi`` file and return its path.

    Args:
        path: Path of the ``.dzi`` file.
        title: Title of the page; the name of the file if ``None``.

    Raises:
        ValueError: If the file does not describe a Deep Zoom image.
    """
    text = path.read_text("utf-8")
    found = {name: re.search(pattern, text) for name, pattern in _FIELDS.items()}
    missing = [name for name, match in found.items() if match is None]
    if missing:
        raise ValueError(f"{path} describes no Deep Zoom image: it lacks {', '.join(missing)}")
    values = {name: match[1] for name, match in found.items() if match is not None}
    data: dict[str, int | str] = {name: int(value) for name, value in values.items() if value.isdigit()}
    data |= {"format": values["format"], "folder": quote(files_folder(path).name)}
    # a "<" in a name could end the script element
    script = json.dumps(data).replace("<", "\\u003c")
    filled = {"TITLE": html.escape(title or path.stem), "DATA": script}
    template = resources.files("pixelsmith.io").joinpath("viewer.html").read_text("utf-8")
    parts = template.split("@@")  # placeholders at the odd places
    page = "".join(filled[part] if place % 2 else part for place, part in enumerate(parts))
    target = path.with_suffix(".html")
    write_text(target, page)
    return target
