# SPDX-License-Identifier: Apache-2.0
"""Evaluation by the protocols of the published tables."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
