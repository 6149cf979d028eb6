# SPDX-License-Identifier: Apache-2.0
from .dataset import FeatureDataset as FeatureDataset
from .errors import StoreError as StoreError
from .errors import StoreFullError as StoreFullError
from .files import load_features as load_features
from .files import save_features as save_features
from .ledger import Item as Item
from .options import StoreOptions as StoreOptions
from .report import FillReport as FillReport
from .report import ItemResult as ItemResult
from .search import Neighbour as Neighbour
from .search import NeighbourIndex as NeighbourIndex
from .store import FeatureStore as FeatureStore
from .transformer import FeatureTransformer as FeatureTransformer
