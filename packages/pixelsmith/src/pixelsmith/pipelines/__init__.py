# SPDX-License-Identifier: Apache-2.0
"""Pipelines of diffusers at any size, in memory."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
