# SPDX-License-Identifier: Apache-2.0
"""Conversations with images, videos, regions and calls: what models are trained and evaluated on."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
