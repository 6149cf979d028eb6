# SPDX-License-Identifier: Apache-2.0
"""The command ``vitron``."""

from common_kernels.runtime.cli import create_app, run_app
from cyclopts import App

app = create_app(
    "vitron",
    """Hold conversations about images and videos: ask, segment, edit, generate, track.

**Examples**

    vitron demo
    vitron chat photo.png
    vitron serve
    vitron fit mine/ -o runs/calls --stage 1.2
    vitron run photo.png --reply "<module>B</module><instruction>segment: the dog</instruction>"
    vitron specialists
""",
)
for _name in (
    "demo",
    "chat",
    "run",
    "serve",
    "ui",
    "fit",
    "evaluate",
    "parse",
    "grammar",
    "specialists",
    "doctor",
):
    app.command(f"vitron.cli.{_name}:{_name}", name=_name)

_data = App(
    name="data",
    help="""Convert, check and show instruction data.

**Examples**

    vitron data convert refcoco refcoco/ -o mine/
    vitron data check mine/
""",
)
for _name in ("convert", "demo", "conditions", "check", "show"):
    _data.command(f"vitron.cli.data:{_name}", name=_name)
app.command(_data)


def main() -> None:
    """Run the command line and exit."""
    raise SystemExit(run_app(app))
