# SPDX-License-Identifier: Apache-2.0
"""Kernels shared by the vision packages: sparse attention, dictionaries, phase fusion, tiling."""

from importlib.metadata import version

from common_kernels._dispatch import BackendUnavailableError
from common_kernels.ops.knn_attention import Backend, knn_attention
from common_kernels.ops.knn_dictionary import KNNDictionary, knn_dictionary

__version__ = version("common-kernels")

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "KNNDictionary",
    "__version__",
    "knn_attention",
    "knn_dictionary",
]
