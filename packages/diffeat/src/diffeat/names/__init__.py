# SPDX-License-Identifier: Apache-2.0
"""Names of activations: their grammar, and the names of a model."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
