# SPDX-License-Identifier: Apache-2.0
from .crops import CropOptions as CropOptions
from .crops import Crops as Crops
from .crops import WholeImages as WholeImages
from .folders import ImagePair as ImagePair
from .folders import PairedFolders as PairedFolders
from .folders import find_images as find_images
from .folders import find_pairs as find_pairs
