# SPDX-License-Identifier: Apache-2.0
"""Pixelsmith: images of any size from diffusion models, within the memory of one patch."""

from importlib.metadata import version

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
__version__ = version("pixelsmith")
__all__ += ["__version__"]
