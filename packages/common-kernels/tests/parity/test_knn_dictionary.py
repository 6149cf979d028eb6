# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels import knn_dictionary
from common_kernels.ops.knn_dictionary import topk

BACKENDS = ["reference", "topk", "auto"]


def brute_force(x, k, similarity, force_self, regions):
    """Return the allowed pairs by sorting one row at a time, in Python."""
    B, N, _ = x.shape
    allowed = torch.zeros(B, N, N, dtype=torch.bool)
    for b in range(B):
        labels = [0] * N if regions is None else regions[b % len(regions)].tolist()
        for i in range(N):
            if labels[i] < 0:
                continue
            if similarity == "l2":
                scores = -(x[b] - x[b, i]).square().sum(dim=-1)
            else:
                scores = (x[b] * x[b, i]).sum(dim=-1)
                if similarity == "cosine":
                    scores = scores / (x[b].norm(dim=-1) * x[b, i].norm())
            scores = scores.tolist()
            candidates = [j for j in range(N) if labels[j] == labels[i]]
            candidates.sort(key=lambda j: (not (force_self and j == i), -scores[j], j))
            allowed[b, i, candidates[:k]] = True
    return allowed


@pytest.mark.parametrize("with_regions", [False, True])
@pytest.mark.parametrize("force_self", [False, True])
@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_brute_force(backend, similarity, force_self, with_regions):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(4, 21, 5, generator=g, dtype=torch.float64)
    regions = torch.randint(-1, 3, (2, 21), generator=g) if with_regions else None
    for k in (1, 4, 9, 21):
        got = knn_dictionary(
            x, k, similarity=similarity, force_self=force_self, regions=regions, backend=backend
        )
        expected = brute_force(x, k, similarity, force_self, regions)
        assert torch.equal(got.allowed(), expected)
        listed = (got.index >= 0).sum(dim=-1)
        assert torch.equal(listed, expected.sum(dim=-1))  # no key stands twice
        assert got.is_full == (not with_regions)
        assert got.has_empty_rows == (with_regions and bool((regions < 0).any()))


def test_the_dot_product_needs_force_self():
    # otherwise the flag would go untested above
    x = torch.randn(4, 21, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    free = knn_dictionary(x, 4, force_self=False).allowed()
    assert not free.diagonal(dim1=1, dim2=2).all()
    assert knn_dictionary(x, 4).allowed().diagonal(dim1=1, dim2=2).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
def test_backends_agree_under_many_ties(dtype, similarity):
    g = torch.Generator().manual_seed(1)
    x = torch.randint(-1, 2, (6, 33, 2), generator=g).to(dtype)  # nine distinct tokens
    regions = torch.randint(-1, 2, (3, 33), generator=g)
    for k in (1, 2, 7, 32, 33):
        for chosen in (None, regions):
            a, b = (
                knn_dictionary(x, k, similarity=similarity, regions=chosen, backend=backend)
                for backend in ("reference", "topk")
            )
            assert torch.equal(a.allowed(), b.allowed())


def test_half_input_ranks_like_its_fp32_copy():
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    for backend in BACKENDS:
        half, single = (knn_dictionary(y, 5, backend=backend).allowed() for y in (x, x.float()))
        assert torch.equal(half, single)


def test_blocks_of_windows_change_nothing(monkeypatch):
    g = torch.Generator().manual_seed(4)
    x = torch.randn(10, 12, 3, generator=g)
    regions = torch.randint(-1, 2, (2, 12), generator=g)
    whole = knn_dictionary(x, 4, regions=regions, backend="topk").allowed()
    monkeypatch.setattr(topk, "_BLOCK_ELEMENTS", 12 * 12 * 4)  # four windows of ten: a short last block
    assert torch.equal(knn_dictionary(x, 4, regions=regions, backend="topk").allowed(), whole)
    assert torch.equal(knn_dictionary(x, 4, regions=regions, backend="reference").allowed(), whole)


def test_strided_features():
    x = torch.randn(2, 6, 30, generator=torch.Generator().manual_seed(5)).mT
    for backend in BACKENDS:
        got = knn_dictionary(x, 4, backend=backend).allowed()
        assert torch.equal(got, knn_dictionary(x.contiguous(), 4, backend=backend).allowed())
