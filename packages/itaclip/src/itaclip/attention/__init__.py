# SPDX-License-Identifier: Apache-2.0
"""Strategies for the attention of the last block, found by name; other packages can add theirs."""

import lazy_loader as lazy

# names of strategies need no torch
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
