# SPDX-License-Identifier: Apache-2.0
"""Image files in and out: any kind is read, nothing of an image is lost on the way back."""

import lazy_loader as lazy

# help texts need the limits without numpy and Pillow
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
