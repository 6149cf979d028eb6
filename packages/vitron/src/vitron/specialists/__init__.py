# SPDX-License-Identifier: Apache-2.0
"""Specialists, which run calls: their interface, and their discovery, loading, running and timeouts."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
