# SPDX-License-Identifier: Apache-2.0
"""A web page for conversations about images and videos; needs the extra ``vitron[ui]``."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
