# SPDX-License-Identifier: Apache-2.0
"""A drawn world with exact ground truth."""

from shapeworld.render import Rendering, render, render_at
from shapeworld.scene import Background, Scene, SceneConfig, Split, Thing, draw_scene, scene_rng

__all__ = [
    "Background",
    "Rendering",
    "Scene",
    "SceneConfig",
    "Split",
    "Thing",
    "draw_scene",
    "render",
    "render_at",
    "scene_rng",
]
