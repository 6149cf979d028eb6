# SPDX-License-Identifier: Apache-2.0
from .config import AttentionConfig as AttentionConfig
from .config import ITACLIPConfig as ITACLIPConfig
from .model import ITACLIP as ITACLIP
from .pictures import Overlay as Overlay
from .results import Segmentation as Segmentation
from .text.sources import TextSource as TextSource

__version__: str
