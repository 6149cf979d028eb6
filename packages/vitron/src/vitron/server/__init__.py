# SPDX-License-Identifier: Apache-2.0
"""A server with OpenAI's interface; needs the extra ``vitron[server]``."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
