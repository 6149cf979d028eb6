# SPDX-License-Identifier: Apache-2.0
"""The compiled kernels against the references in float64, with every instruction set of this processor."""

import pytest
import torch
from common_kernels import _native, fuse_phase, knn_attention, knn_dictionary
from common_kernels.testing import (
    assert_close_to_reference,
    attention_inputs,
    compare_backends,
    strided,
)

pytestmark = pytest.mark.skipif(
    _native.why_no_native() is not None, reason=f"no compiled kernels: {_native.why_no_native()}"
)
INSTRUCTION_SETS = _native.instruction_sets() or ["none"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=INSTRUCTION_SETS, autouse=True)
def instruction_set(request):
    with _native.use_instruction_set(request.param):
        yield request.param


def compare(inputs):
    def attend(q, k, v, backend):
        return knn_attention(q, k, v, inputs.dictionary, backend=backend)

    compare_backends(attend, ["native"], {"q": inputs.q, "k": inputs.k, "v": inputs.v})


# below, at and above the register widths 4, 8 and 16, whole and with a rest; 128 and 200 go by a loop
@pytest.mark.parametrize("head_dim", [1, 7, 8, 15, 30, 32, 48, 64, 128, 200])
def test_every_head_dim(head_dim):
    compare(attention_inputs(2, 3, 21, head_dim, 9, padding=0.3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 15, 16, 17, 64, 65])
def test_every_length_of_list_and_dtype(k, dtype):
    compare(attention_inputs(1, 2, 65, 16, k, dtype=dtype))


# neighbours have most keys in common; an odd number of queries leaves one without a partner
@pytest.mark.parametrize("head_dim", [30, 64, 200])
@pytest.mark.parametrize("padding", [0.0, 0.3])
@pytest.mark.parametrize("k", [18, 37, 41])
def test_queries_with_common_keys(k, padding, head_dim):
    compare(attention_inputs(2, 5, 41, head_dim, k, padding=padding))


@pytest.mark.parametrize("layout", ["gap", "transposed", "offset", "expanded"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout(layout, dtype):
    compare(attention_inputs(3, 2, 19, 32, 7, layout=layout, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bias_and_its_gradient(dtype):
    inputs = attention_inputs(3, 2, 18, 12, 5, padding=0.4, dtype=dtype)
    bias = strided(torch.randn(2, 18, 18, generator=torch.Generator().manual_seed(1)).to(dtype), "transposed")

    def attend(q, k, v, bias, backend):
        return knn_attention(q, k, v, inputs.dictionary, bias=bias, scale=0.3, backend=backend)

    tensors = {"q": inputs.q, "k": inputs.k, "v": inputs.v, "bias": bias}
    compare_backends(attend, ["native"], tensors)


@pytest.mark.parametrize(("N", "k"), [(70, 11), (70, 50), (71, 50)])
def test_threads_change_no_bit(N, k):
    inputs = attention_inputs(1, 4, N, 32, k, requires_grad=True)

    def run():
        out = knn_attention(inputs.q, inputs.k, inputs.v, inputs.dictionary, backend="native")
        return [out, *torch.autograd.grad(out.square().sum(), [inputs.q, inputs.k, inputs.v])]

    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_key_that_there_is_not_is_an_error():
    inputs = attention_inputs(1, 1, 8, 4, 3)
    inputs.dictionary.index[0, 5, 1] = 8
    with pytest.raises(RuntimeError, match="lists a key that is out of range"):
        knn_attention(inputs.q, inputs.k, inputs.v, inputs.dictionary, backend="native")


@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
@pytest.mark.parametrize("N", [1, 3, 16, 37, 200])
def test_dictionary_of_distinct_scores(N, similarity):
    g = torch.Generator().manual_seed(N)
    # small integers: every product and sum is exact, and many are equal
    x = torch.randint(-3, 4, (4, N, 5), generator=g).float()
    regions = torch.randint(-1, 2, (2, N), generator=g)
    for k in {1, 2, N // 3 + 1, max(1, N - 1), N}:
        for chosen in (None, regions):
            for force_self in (False, True):
                got, expected = (
                    knn_dictionary(
                        x, k, similarity=similarity, regions=chosen, force_self=force_self, backend=backend
                    )
                    for backend in ("native", "reference")
                )
                assert torch.equal(got.allowed(), expected.allowed())
                used = got.index >= 0
                assert torch.equal(used.sum(dim=-1), expected.allowed().sum(dim=-1))  # no key twice


@pytest.mark.parametrize("k", [1, 7, 64, 500])
@pytest.mark.parametrize(
    "values",
    [
        lambda x: x,
        lambda x: x.exp() * 1e30,  # a few tower above the others
        lambda x: x.sign() * x.abs().pow(30),  # dense around zero, down to denormal numbers
        lambda x: x.round(),  # heaps of equal ones
        lambda x: torch.where(x > 1, float("nan"), torch.where(x < -1, float("-inf"), x)),
        lambda x: torch.where(x > 0, float("inf"), torch.where(x > -0.5, -0.0, 0.0)),
        lambda x: torch.full_like(x, -3.0),
    ],
)
def test_selection_of_any_distribution(values, k):
    scores = values(torch.randn(2, 3, 501, generator=torch.Generator().manual_seed(k)))
    none = scores.new_empty(0)
    index = torch.ops.common_kernels.select_native(scores, none, none.long(), k, 0, 0, False)
    lowest = torch.finfo(torch.float32).min
    finite = torch.nan_to_num(scores, nan=lowest, posinf=-lowest, neginf=lowest) + 0.0
    order = finite.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    assert torch.equal(index.long(), order.sort(dim=-1).values)  # ascending


def test_blocks_of_rows_and_windows_change_nothing(monkeypatch):
    from common_kernels.ops.knn_dictionary import native

    g = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (6, 30, 4), generator=g).float()
    regions = torch.randint(-1, 2, (3, 30), generator=g)
    for similarity in ("dot", "l2"):
        whole = knn_dictionary(x, 5, similarity=similarity, regions=regions, backend="native").index
        for elements in (1, 30 * 7, 30 * 30 * 4):  # a row, some rows, some windows
            with monkeypatch.context() as patch:
                patch.setattr(native, "_BLOCK_ELEMENTS", elements)
                again = knn_dictionary(x, 5, similarity=similarity, regions=regions, backend="native").index
            assert torch.equal(again, whole)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 64, 48), (2, 3, 33, 20)])
def test_phase(shape, weight):
    g = torch.Generator().manual_seed(0)
    x, guidance = torch.randn(2, *shape, generator=g).unbind()
    out = fuse_phase(x, guidance, weight=weight, backend="native")
    exact = fuse_phase(x.double(), guidance.double(), weight=weight, backend="reference")
    eager = fuse_phase(x, guidance, weight=weight, backend="phasor")
    assert_close_to_reference(out, exact, eager=eager)


def test_phase_keeps_bins_without_a_direction():
    x = torch.full((4, 4), 2.0)
    zero = torch.zeros_like(x)
    assert torch.equal(fuse_phase(x, -x, backend="native"), x)  # opposite
    assert torch.equal(fuse_phase(x, zero, weight=1.0, backend="native"), x)
    assert torch.equal(fuse_phase(zero, x, backend="native"), zero)


def test_phase_in_blocks(monkeypatch):
    from common_kernels.ops.fuse_phase import native

    x, guidance = torch.randn(2, 5, 2, 8, 6, generator=torch.Generator().manual_seed(0)).unbind()
    whole = fuse_phase(x, guidance, backend="native")
    monkeypatch.setattr(native, "_BLOCK_ELEMENTS", 3 * 48)
    torch.testing.assert_close(fuse_phase(x, guidance, backend="native"), whole)
