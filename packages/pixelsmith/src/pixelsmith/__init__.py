# SPDX-License-Identifier: Apache-2.0
"""Pixelsmith: images of any size from diffusion models, within the memory of one patch."""

from importlib.metadata import version

__version__ = version("pixelsmith")

__all__ = ["__version__"]
