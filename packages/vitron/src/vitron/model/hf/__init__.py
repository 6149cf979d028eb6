# SPDX-License-Identifier: Apache-2.0
"""Vitron for transformers: configuration, model and processor, as its ``Auto`` classes load them."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
