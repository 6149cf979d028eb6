# SPDX-License-Identifier: Apache-2.0
"""Kernels shared by the vision packages: sparse attention, dictionaries, phase fusion, tiling."""

from importlib.metadata import version

from common_kernels._dispatch import BackendUnavailableError
from common_kernels._explain import explain_backends
from common_kernels.ops.chess_mask import chess_mask
from common_kernels.ops.fuse_phase import fuse_phase
from common_kernels.ops.knn_attention import Backend, knn_attention
from common_kernels.ops.knn_dictionary import KNNDictionary, knn_dictionary

__version__ = version("common-kernels")

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "KNNDictionary",
    "__version__",
    "chess_mask",
    "explain_backends",
    "fuse_phase",
    "knn_attention",
    "knn_dictionary",
]
