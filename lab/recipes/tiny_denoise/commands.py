# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes denoise``: draw training images, train, ship, judge."""

from __future__ import annotations

import typer

from recipes.tiny_denoise.dead_leaves import pool
from recipes.tiny_denoise.judging import judge_command
from recipes.tiny_denoise.training import ship, train

app = typer.Typer(help="The blind denoiser of semanir, trained on dead leaves.", no_args_is_help=True)
for command in (pool, train, ship):
    app.command()(command)
app.command("judge")(judge_command)
