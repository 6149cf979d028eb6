# SPDX-License-Identifier: Apache-2.0
"""Videos in and out: sampled from any container in bounded memory, written as MP4 or GIF.

PyAV, of the extra ``common-kernels[video]``, is imported when a video is opened.
"""

import lazy_loader as lazy

# help texts need the limits without numpy and Pillow
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
