# SPDX-License-Identifier: Apache-2.0
"""Images for training: plain and paired folders, and crops that a number decides."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
