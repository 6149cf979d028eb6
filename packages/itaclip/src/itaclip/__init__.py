# SPDX-License-Identifier: Apache-2.0
"""Segments any class you can name, training-free, with CLIP."""

from importlib.metadata import version

import lazy_loader as lazy

# open_clip alone takes seconds to import
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

__version__ = version("itaclip")
__all__ += ["__version__"]
