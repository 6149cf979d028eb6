# SPDX-License-Identifier: Apache-2.0
"""Peak memory of the backends of attention at the sizes of the network."""

import pytest
import torch
from common_kernels import knn_attention, knn_dictionary

pytestmark = pytest.mark.gpu

HEADS, HEAD_DIM, TOKENS = 6, 30, 1 << 14


def peak(backend, num_tokens, k):
    """Return the bytes held beyond the inputs while windows of a fixed number of tokens in all attend."""
    windows = TOKENS // num_tokens
    q, key, value = torch.randn(3, windows, HEADS, num_tokens, HEAD_DIM, device="cuda")
    features = torch.randn(windows, num_tokens, HEADS * HEAD_DIM, device="cuda")
    dictionary = knn_dictionary(features, k)
    with torch.no_grad():
        knn_attention(q[:1], key[:1], value[:1], knn_dictionary(features[:1], k), backend=backend)  # compiles
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        knn_attention(q, key, value, dictionary, backend=backend)
        torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def test_the_kernel_takes_less_than_the_mask_and_that_less_than_gathered_keys():
    kernel, mask, gathered = (peak(backend, 1024, 256) for backend in ("triton", "sdpa", "reference"))
    assert kernel < mask < gathered


def test_memory_of_the_kernel_does_not_grow_with_the_window_and_that_of_the_mask_does():
    small, large = (peak("triton", tokens, 64) for tokens in (256, 1024))
    assert large == pytest.approx(small, rel=0.1)
    assert peak("sdpa", 1024, 64) > 3 * peak("sdpa", 256, 64)
