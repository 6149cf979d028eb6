# SPDX-License-Identifier: Apache-2.0
"""Features on disk: computed once, read often."""

from diffeat.store.dataset import FeatureDataset
from diffeat.store.errors import StoreError, StoreFullError
from diffeat.store.files import load_features, save_features
from diffeat.store.filling import FillReport
from diffeat.store.ledger import Item
from diffeat.store.settings import Recipe
from diffeat.store.store import FeatureStore

__all__ = [
    "FeatureDataset",
    "FeatureStore",
    "FillReport",
    "Item",
    "Recipe",
    "StoreError",
    "StoreFullError",
    "load_features",
    "save_features",
]
