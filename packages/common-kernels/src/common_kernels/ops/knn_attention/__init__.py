# SPDX-License-Identifier: Apache-2.0
"""Softmax attention of every query over its own list of keys."""

from common_kernels.ops.knn_attention.api import Backend, explain_knn_attention, knn_attention

__all__ = ["Backend", "explain_knn_attention", "knn_attention"]
