# SPDX-License-Identifier: Apache-2.0
"""Activations ranked by a user's labels, or measured without labels."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
