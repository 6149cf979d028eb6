# SPDX-License-Identifier: Apache-2.0
from . import presets as presets
from .extractor import FeatureExtractor as FeatureExtractor
from .features import Features as Features
from .hooks.capture import Recording as Recording
from .hooks.capture import capture as capture
from .hooks.collector import Storage as Storage
from .names.grammar import ActivationName as ActivationName
from .names.listing import Activation as Activation
from .names.listing import list_activations as list_activations
from .options import ExtractionOptions as ExtractionOptions
from .options import MapOptions as MapOptions
from .ranking.ranker import Ranker as Ranker
from .store.store import FeatureStore as FeatureStore
from .store.transformer import FeatureTransformer as FeatureTransformer

__version__: str
