# SPDX-License-Identifier: Apache-2.0
"""Kernels shared by the vision packages: sparse attention, dictionaries, phase fusion, tiling."""

from importlib.metadata import version

import lazy_loader as lazy

# names are imported on first use, so that command lines show their help without torch
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
__version__ = version("common-kernels")
__all__ += ["__version__"]
