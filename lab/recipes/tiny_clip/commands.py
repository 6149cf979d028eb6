# SPDX-License-Identifier: Apache-2.0
"""Commands of tiny-clip: paint the pool, train, ship, judge, and paint the demo's images."""

from __future__ import annotations

import typer

from recipes.tiny_clip.demo_scenes import demo_scenes
from recipes.tiny_clip.judge import judge
from recipes.tiny_clip.scenes import pool
from recipes.tiny_clip.ship import ship
from recipes.tiny_clip.train import train

app = typer.Typer(help=__doc__, no_args_is_help=True)
for command in (pool, train, ship, judge, demo_scenes):
    app.command()(command)

if __name__ == "__main__":
    app()
