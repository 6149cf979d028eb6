# SPDX-License-Identifier: Apache-2.0
"""Softmax attention of every query over its own list of keys."""

from common_kernels.ops.knn_attention.api import Backend, knn_attention

__all__ = ["Backend", "knn_attention"]
