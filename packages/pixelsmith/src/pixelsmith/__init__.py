# SPDX-License-Identifier: Apache-2.0
"""Pixelsmith: images of any size from diffusion models, within the memory of one patch."""

from importlib.metadata import version

from pixelsmith.core.config import JobConfig
from pixelsmith.store.canvas import Canvas

__version__ = version("pixelsmith")

__all__ = ["Canvas", "JobConfig", "__version__"]
