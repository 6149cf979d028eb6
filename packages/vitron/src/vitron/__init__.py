# SPDX-License-Identifier: Apache-2.0
"""A vision language model that understands, segments, generates and edits images and videos."""

from importlib.metadata import version

import lazy_loader as lazy

from vitron.auto_classes import register_auto_classes

# names are imported on first use: parsing needs neither an image library nor torch
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

__version__ = version("vitron")
__all__ += ["__version__"]

register_auto_classes()
