# SPDX-License-Identifier: Apache-2.0
"""What spoils an image, on batches of tensors: noise, JPEG, blur, sampling and weather."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
