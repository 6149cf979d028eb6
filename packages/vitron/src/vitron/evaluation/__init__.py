# SPDX-License-Identifier: Apache-2.0
"""Scores, data sets for evaluation, and runs that resume and are sharded over processes."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
