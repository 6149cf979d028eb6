# SPDX-License-Identifier: Apache-2.0
"""The protocol: messages, calls, regions and media, and the language of calls. Nothing here imports torch."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
