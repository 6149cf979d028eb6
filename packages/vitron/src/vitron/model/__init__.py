# SPDX-License-Identifier: Apache-2.0
"""The vision language model: its classes for transformers, encoding, generation and synergy."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
