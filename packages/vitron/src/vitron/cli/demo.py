# SPDX-License-Identifier: Apache-2.0
"""``vitron demo``: conversations with the small model, compared with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from common_kernels.runtime.cli import OutputPath, Report, emit, progress_bars, say, show
from cyclopts import Parameter


def demo(
    *,
    model: str = "vitron-tiny",
    scripted: Annotated[bool, Parameter(negative="")] = False,
    output: OutputPath = Path("vitron-demo"),
    report: Report = Report(),
) -> None:
    """Hold conversations with the small model about drawn images and videos it was not trained on.

    It answers, segments, edits, generates and tracks; toy specialists, which know drawn shapes only, run its
    calls. Scores compare with what was drawn. Writes every result, an image or a video, and transcript.html.

    **Examples**

        vitron demo
        vitron demo --scripted -o scripted/

    Args:
        model: Shipped name, folder, or hub id.
        scripted: Run the calls of written messages; no model takes part.
        output: Folder of the results and the transcript.
    """
    if scripted:
        from vitron.demo.scripted import run_demo

        figures = run_demo(output)
    else:
        from vitron.demo.model import run_model_demo

        with progress_bars() as bars:
            bar = bars.add_task("conversations", total=None)
            figures = run_model_demo(
                output,
                model,
                on_conversation=lambda done, total, task: bars.update(
                    bar, completed=done, total=total, description=task
                ),
            )
    if report.json:
        emit(figures.to_dict())
        return
    from rich.table import Table

    table = Table("task", "score", "measured as", title=f"Messages {figures.replies}")
    for task in figures.tasks:
        table.add_row(task.name, f"{task.score:.2f}", task.measure)
    show(table)
    say(f"{figures.parse_rate:.0%} of the messages were parsed without an issue")
    say(f"Open {output / 'transcript.html'} in a browser")
