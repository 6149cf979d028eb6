# SPDX-License-Identifier: Apache-2.0
"""``vitron demo``: scripted replies, carried out and measured."""

from __future__ import annotations

import json
from pathlib import Path

from rich.table import Table
from typer import echo

from vitron.cli.output import Debug, Json, Out, say, stdout, user_errors


def demo(out: Out = "vitron-demo", json_output: Json = False, debug: Debug = False) -> None:
    """Carry out scripted replies on drawn pictures and clips, and measure them against what was drawn.

    No language model takes part: the replies are written into the demo. It shows that calls are read, planned
    and carried out, with toy specialists. Writes a picture per task and transcript.html.
    """
    with user_errors(debug):
        from vitron.demo import run_demo

        figures = run_demo(Path(out))
    if json_output:
        echo(json.dumps(figures.to_dict()))
        return
    table = Table("task", "score", "measured as", title="Scripted replies, carried out by toy specialists")
    for task in figures.tasks:
        table.add_row(task.name, f"{task.score:.2f}", task.measure)
    stdout.print(table)
    say(f"{figures.parse_rate:.0%} of the replies were read without an issue; no language model took part")
    say(f"Open {Path(out) / 'transcript.html'} in a browser")
