# SPDX-License-Identifier: Apache-2.0
"""Conversations between one user and one model."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
