# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes``: draw training images, train, judge, ship."""

from __future__ import annotations

import typer

from recipes.dead_leaves import pool
from recipes.judge_denoise import judge_command
from recipes.tiny_denoise import ship, train

app = typer.Typer(help=__doc__, no_args_is_help=True)
for command in (pool, train, ship):
    app.command()(command)
app.command("judge")(judge_command)

if __name__ == "__main__":
    app()
