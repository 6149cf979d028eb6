# SPDX-License-Identifier: Apache-2.0
"""Top-k similarity dictionaries over token features."""

from common_kernels.ops.knn_dictionary.api import Similarity, explain_knn_dictionary, knn_dictionary
from common_kernels.ops.knn_dictionary.dictionary import KNNDictionary, TransposedList

__all__ = ["KNNDictionary", "Similarity", "TransposedList", "explain_knn_dictionary", "knn_dictionary"]
