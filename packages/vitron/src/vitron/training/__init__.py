# SPDX-License-Identifier: Apache-2.0
"""Training on Lightning: stages as data, losses, batches of mixed tasks."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
