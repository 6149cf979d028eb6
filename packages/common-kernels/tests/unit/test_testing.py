# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest
import torch
from common_kernels import knn_attention, knn_dictionary
from common_kernels.testing import (
    adversarial_features,
    assert_close_to_reference,
    attention_inputs,
    clustered_features,
    compare_backends,
    gaussian_features,
    peak_bytes,
    poisoned_empty,
    random_dictionary,
    relative_error,
    rounding_allowance,
    strided,
)

LAYOUTS = ["gap", "transposed", "offset", "expanded"]


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08, rel=1e-5)
    assert relative_error(torch.tensor([0.5]), torch.tensor([0.0])) == 0.5
    with pytest.raises(ValueError, match="one shape"):
        relative_error(torch.zeros(2), torch.zeros(3))


def test_close_means_no_worse_than_eager():
    exact = torch.full((100,), 1.0, dtype=torch.float64)
    eager, worse = exact.float() + 1e-3, exact.float() + 3e-3
    assert_close_to_reference(eager, exact, eager=eager)
    with pytest.raises(
        AssertionError, match=r"gradient: relative error 3\.00e-03.*2 times eager's 1\.00e-03"
    ):
        assert_close_to_reference(worse, exact, eager=eager, name="gradient")
    with pytest.raises(AssertionError, match="allowed for rounding"):
        assert_close_to_reference(eager, exact)
    assert_close_to_reference(worse, exact, eager=eager, factor=4)


def test_nan_never_passes():
    nan = torch.full((3,), float("nan"))
    for reference in (torch.zeros(3), nan):
        with pytest.raises(AssertionError):
            assert_close_to_reference(nan, reference.double(), eager=nan)
    with pytest.raises(AssertionError):
        assert_close_to_reference(torch.zeros(3), nan.double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_allowance_covers_rounding_but_no_coarser_precision(dtype):
    a, b = (
        torch.randn(40, 500, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1)
    )
    rounded = (a.to(dtype).double() * b.to(dtype).double()).sum(dim=-1)
    value = (a.to(dtype) @ b.to(dtype).mT).diagonal()
    assert_close_to_reference(value, rounded, reduction=500)
    coarser = rounded * (1 + 2.0 * rounding_allowance(dtype, reduction=500))
    with pytest.raises(AssertionError):
        assert_close_to_reference(coarser, rounded, dtype=dtype, reduction=500)
    assert rounding_allowance(dtype) < rounding_allowance(dtype, reduction=100)


@pytest.mark.parametrize("layout", [None, *LAYOUTS])
def test_inputs_are_repeatable_and_as_asked(layout):
    a, b = (
        attention_inputs(2, 3, 20, 5, 7, layout=layout, padding=0.3, dtype=torch.float16, requires_grad=True)
        for _ in range(2)
    )
    assert a.q.shape == (2, 3, 20, 5)
    assert a.q.dtype == torch.float16
    assert all(x.requires_grad and x.is_leaf for x in (a.q, a.k, a.v))
    assert torch.equal(a.k, b.k)
    assert torch.equal(a.dictionary.index, b.dictionary.index)
    assert (a.dictionary.index < 0).any()
    assert a.dictionary.allowed().sum(dim=-1).max() <= 7
    assert a.q.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided_keeps_the_values(layout):
    x = torch.randn(3, 4, 5)
    y = strided(x, layout)
    assert torch.equal(y, x[:1].expand_as(x) if layout == "expanded" else x)
    assert layout == "offset" or not y.is_contiguous()
    assert layout != "offset" or y.storage_offset() > 0


def test_random_lists_hold_distinct_keys():
    full = random_dictionary(2, 9, 4, num_keys=30)
    assert full.is_full
    assert (full.allowed().sum(dim=-1) == 4).all()
    empty = random_dictionary(2, 9, 4, padding=0.9)
    assert empty.has_empty_rows
    assert not torch.equal(full.index, random_dictionary(2, 9, 4, num_keys=30, seed=1).index)


def test_clustered_features_cluster_and_gaussian_ones_do_not():
    def closeness(x):
        grid = torch.nn.functional.normalize(x[0], dim=-1).view(16, 16, -1)
        return (grid[:, 1:] * grid[:, :-1]).sum(dim=-1).mean()

    x, noise = clustered_features(256, seed=1), gaussian_features(256, seed=1)
    assert x.shape == noise.shape == (1, 256, 75)
    assert closeness(x) > 0.3
    assert abs(closeness(noise)) < 0.1
    with pytest.raises(ValueError, match="square number"):
        clustered_features(200)


def test_adversarial_features_hurt_as_they_say():
    hub = knn_dictionary(adversarial_features(32, kind="hub"), 4, force_self=False).allowed()
    assert (hub.sum(dim=1) > 0).sum() == 4
    blocks = knn_dictionary(adversarial_features(32, 4, kind="blocks"), 8).allowed()[0]
    assert torch.equal(blocks, torch.block_diag(*[torch.ones(8, 8)] * 4).bool())
    ties = knn_dictionary(adversarial_features(32, kind="ties"), 4, force_self=False).index
    assert torch.equal(ties.sort(dim=-1).values, torch.arange(4, dtype=torch.int32).expand(1, 32, 4))


def test_poison_shows_unwritten_outputs():
    with poisoned_empty():
        assert torch.empty(3).isnan().all()
        assert torch.ones(3).new_empty(2).isnan().all()
        assert torch.empty_like(torch.ones(2)).isnan().all()
        assert torch.empty(3, dtype=torch.int64).shape == (3,)
    assert torch.empty.__name__ == "empty"


@pytest.mark.parametrize("backend", ["reference", "chunked", "sdpa", "csr"])
def test_attention_writes_all_of_its_output(backend):
    inputs = attention_inputs(2, 2, 33, 5, 7, padding=0.5)
    with poisoned_empty():
        out = knn_attention(inputs.q, inputs.k, inputs.v, inputs.dictionary, backend=backend)
    assert out.isfinite().all()


def test_compare_backends_finds_the_wrong_gradient():
    def double(x, backend):
        if backend == "detached":
            return 2 * x + (x - x.detach())
        return 2 * x

    tensors = {"x": torch.rand(5)}
    compare_backends(double, ["reference"], tensors)
    with pytest.raises(AssertionError, match="detached: x"):
        compare_backends(double, ["detached"], tensors)


@pytest.mark.parametrize("layout", ["gap", "transposed"])
def test_backends_of_attention_agree(layout):
    inputs = attention_inputs(2, 2, 40, 6, 9, padding=0.2, layout=layout)

    def attend(q, k, v, backend):
        return knn_attention(q, k, v, inputs.dictionary, backend=backend)

    compare_backends(attend, ["sdpa", "csr", "chunked"], {"q": inputs.q, "k": inputs.k, "v": inputs.v})


def test_peak_counts_what_is_held_at_once():
    def call():
        a = torch.ones(1 << 18)
        b = a + a
        del a
        return b.sum()

    megabyte = 1 << 20
    assert 2 * megabyte <= peak_bytes(call) <= 2 * megabyte + 4096


def test_peak_sees_inside_an_operator():
    scores = torch.rand(1, 1, 512, 8)
    held = peak_bytes(lambda: torch.softmax(scores @ scores.mT, dim=-1).sum())
    assert held >= 512 * 512 * 4


def test_the_helpers_need_no_pytest():
    probe = "import sys, common_kernels.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
