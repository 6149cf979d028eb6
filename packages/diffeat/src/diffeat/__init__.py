# SPDX-License-Identifier: Apache-2.0
"""Names, extracts and ranks the activations of any diffusion model."""

from importlib.metadata import version

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
__version__ = version("diffeat")
__all__ += ["__version__"]
