# SPDX-License-Identifier: Apache-2.0
"""Binds the demos into one self-contained page: ``demo/index.html``.

``demo_page.py semanir`` reads ``demo/semanir.json``, the figures that ``semanir demo --json`` prints, and
the images that it writes to ``demo/semanir/``, and writes a page that holds everything it shows.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import platform
import tomllib
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
}

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { margin-bottom: 0 } h2 { border-top: 1px solid var(--line); padding-top: 1.5rem; margin-top: 2.5rem }
.note { opacity: .7; margin-top: .2rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem 1rem .25rem 0; text-align: left;
  border-bottom: 1px solid var(--line) } td { font-variant-numeric: tabular-nums }
figure { margin: 1.2rem 0 } figcaption { opacity: .7; font-size: .9rem }
img, video { max-width: 100%; height: auto; border-radius: .4rem; border: 1px solid var(--line) }
"""


def cell(value: object) -> str:
    """Format one figure."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return str(value)


def figures_table(figures: dict[str, object]) -> str:
    """Return the figures as an HTML table, one row each."""
    row = "<tr><th>{}</th><td>{}</td></tr>"
    rows = (row.format(html.escape(key), html.escape(cell(value))) for key, value in figures.items())
    return f"<table>{''.join(rows)}</table>"


def image(file: Path) -> str:
    """Return an image or a video as an HTML figure with its bytes inside."""
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    name = html.escape(file.stem.replace("_", " ").replace("-", " "))
    kind = MEDIA_TYPES[file.suffix.lower()]
    source = f"data:{kind};base64,{data}"
    shown = f'<img src="{source}" alt="{name}">'
    if kind.startswith("video/"):
        shown = f'<video src="{source}" controls loop muted></video>'
    return f"<figure>{shown}<figcaption>{name}</figcaption></figure>"


def section(name: str) -> str:
    """Return the section of one package: what it is, its figures, its images."""
    project = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text("utf-8"))["project"]
    figures = json.loads((DEMO / f"{name}.json").read_text("utf-8"))
    found = sorted(f for f in (DEMO / name).rglob("*") if f.suffix.lower() in MEDIA_TYPES)
    # the tiles of a zoomable image are not for people
    files = [file for file in found if not file.parents[1].name.endswith("_files")]
    title = f"<h2>{html.escape(name)} <small>{project['version']}</small></h2>"
    about = f"<p>{html.escape(project['description'])}</p>"
    return title + about + figures_table(figures) + "".join(map(image, files))


PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Demos</title><style>{style}</style></head>
<body><h1>Demos</h1><p class="note">Figures and images of this run: {made}</p>
{body}
</body></html>
"""


def page(names: list[str]) -> str:
    """Return the whole page."""
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {platform.machine()}"
    return PAGE.format(style=STYLE, made=made, body="\n".join(map(section, names)))


def main() -> None:
    """Write the page for the packages named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="PACKAGE")
    (DEMO / "index.html").write_text(page(parser.parse_args().names), "utf-8")


if __name__ == "__main__":
    main()
