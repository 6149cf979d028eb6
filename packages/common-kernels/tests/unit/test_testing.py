# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels import knn_attention
from common_kernels.testing import (
    assert_close_to_reference,
    attention_inputs,
    compare_backends,
    peak_bytes,
    photo_features,
    poisoned_empty,
    relative_error,
)


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08, rel=1e-5)
    assert relative_error(torch.tensor([0.5]), torch.tensor([0.0])) == 0.5
    with pytest.raises(ValueError, match="one shape"):
        relative_error(torch.zeros(2), torch.zeros(3))


def test_close_means_no_worse_than_eager():
    exact = torch.full((100,), 1.0, dtype=torch.float64)
    eager, worse = exact.float() + 1e-3, exact.float() + 3e-3
    assert_close_to_reference(eager, exact, eager=eager)
    with pytest.raises(AssertionError, match=r"gradient: relative error 3\.00e-03"):
        assert_close_to_reference(worse, exact, eager=eager, name="gradient")
    with pytest.raises(AssertionError):
        assert_close_to_reference(eager, exact)


def test_nan_never_passes():
    nan = torch.full((3,), float("nan"))
    with pytest.raises(AssertionError):
        assert_close_to_reference(nan, torch.zeros(3, dtype=torch.float64), eager=nan)


@pytest.mark.parametrize("strided", [False, True])
def test_inputs_are_repeatable_and_as_asked(strided):
    a = attention_inputs(2, 3, 20, 5, 7, strided=strided, padding=0.3, dtype=torch.float16)
    b = attention_inputs(2, 3, 20, 5, 7, strided=strided, padding=0.3, dtype=torch.float16)
    assert a.q.shape == (2, 3, 20, 5)
    assert a.q.dtype == torch.float16
    assert torch.equal(a.k, b.k)
    assert torch.equal(a.dictionary.index, b.dictionary.index)
    assert (a.dictionary.index < 0).any()
    assert a.dictionary.allowed().sum(dim=-1).max() <= 7


def test_photo_features_cluster():
    x = photo_features(256, seed=1)
    assert x.shape == (1, 256, 75)
    x = torch.nn.functional.normalize(x[0], dim=-1)
    grid = x.view(16, 16, -1)
    neighbours = (grid[:, 1:] * grid[:, :-1]).sum(dim=-1).mean()
    strangers = (x @ x.T).mean()
    assert neighbours > strangers + 0.3
    with pytest.raises(ValueError, match="square number"):
        photo_features(200)


def test_poison_shows_unwritten_outputs():
    with poisoned_empty():
        assert torch.empty(3).isnan().all()
        assert torch.ones(3).new_empty(2).isnan().all()
        assert torch.empty_like(torch.ones(2)).isnan().all()
        assert torch.empty(3, dtype=torch.int64).shape == (3,)


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


def test_backends_of_attention_agree():
    inputs = attention_inputs(2, 2, 40, 6, 9, padding=0.2)

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
