# SPDX-License-Identifier: Apache-2.0
"""The Triton backend of knn_attention against the float64 reference.

Runs on a CUDA device, or on the CPU under Triton's interpreter (``TRITON_INTERPRET=1``).
"""

import os

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from common_kernels import KNNDictionary, knn_attention
from common_kernels.ops.knn_attention.triton import registration

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BOUND = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
NAMES = ("q", "k", "v", "bias")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.interpret,
    pytest.mark.skipif(
        not INTERPRETED and not torch.cuda.is_available(), reason="needs a CUDA device or TRITON_INTERPRET=1"
    ),
]


# the interpreter computes in numpy, which warns of what a GPU does silently
silent_overflow = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def device():
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def _poisoned_allocations(monkeypatch):
    """An output element that no kernel writes stays NaN, and NaN passes no comparison."""
    new_empty = torch.Tensor.new_empty

    def new_nan(self, *args, **kwargs):
        x = new_empty(self, *args, **kwargs)
        return x.fill_(float("nan")) if x.is_floating_point() else x

    monkeypatch.setattr(torch.Tensor, "new_empty", new_nan)


def make_dictionary(B, N, M, K, device, *, seed=0):
    """Random lists, unsorted, with unused slots; the row of query 2, if there is one, is empty."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.rand(B, N, M, generator=generator).topk(min(K, M), dim=-1).indices
    unused = torch.rand(index.shape, generator=generator) < 0.2
    unused[..., 0] = False
    index[unused] = -1
    index[:, 2:3] = -1
    return KNNDictionary.from_index(index.to(device), M)


def make_inputs(B, heads, N, M, head_dim, dtype, device, *, bias=False, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator).to(device)

    inputs = {name: randn(B, heads, n, head_dim).to(dtype) for name, n in zip("qkv", (N, M, M), strict=True)}
    if bias:
        inputs["bias"] = randn(heads, N, M)
    return inputs, randn(B, heads, N, head_dim).to(dtype)


def run(inputs, dictionary, dout, backend, *, scale=None, wanted=NAMES):
    """Return the output and the gradients by name."""
    leaves = {name: x.detach().requires_grad_(name in wanted) for name, x in inputs.items()}
    q, k, v, bias = (leaves.get(name) for name in NAMES)
    out = knn_attention(q, k, v, dictionary, bias=bias, scale=scale, backend=backend)
    asked = {name: x for name, x in leaves.items() if name in wanted}
    grads = torch.autograd.grad(out, tuple(asked.values()), dout)
    return {"out": out.detach()} | dict(zip(asked, grads, strict=True))


def exact(inputs, dictionary, dout, **kwargs):
    inputs = {name: x.double() for name, x in inputs.items()}
    return run(inputs, dictionary, dout.double(), "reference", **kwargs)


def assert_close(results, expected, bound):
    assert results.keys() == expected.keys()
    for name, result in results.items():
        norm = expected[name].norm()
        error = (result.double() - expected[name]).norm()
        assert error <= bound * norm, f"{name}: relative error {error / norm:.1e} above {bound:.1e}"


CASES = {
    "one-pair": (1, 1, 1, 1, 1, 1, torch.float32, False),
    "odd": (2, 2, 45, 70, 30, 7, torch.float32, False),
    "odd-bias": (2, 2, 45, 70, 30, 7, torch.float32, True),
    "prime": (1, 3, 13, 17, 15, 4, torch.float32, True),
    "whole-tiles": (1, 2, 64, 64, 32, 8, torch.float16, False),
    "several-row-tiles": (1, 1, 130, 97, 16, 9, torch.float16, True),
    "wide-head": (1, 1, 33, 40, 128, 8, torch.float16, False),
    "wide-head-fp32": (1, 1, 33, 40, 96, 8, torch.float32, False),
    "every-key": (1, 1, 20, 33, 8, 33, torch.float32, False),
    "bf16": (2, 2, 100, 70, 32, 12, torch.bfloat16, True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_output_and_gradients_match_float64(case, device):
    B, heads, N, M, head_dim, K, dtype, has_bias = case
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter computes bfloat16 wrongly")
    dictionary = make_dictionary(B, N, M, K, device)
    inputs, dout = make_inputs(B, heads, N, M, head_dim, dtype, device, bias=has_bias)
    results = run(inputs, dictionary, dout, "triton")
    assert results["out"].dtype == dtype
    assert all(results[name].dtype == x.dtype for name, x in inputs.items())
    assert_close(results, exact(inputs, dictionary, dout), BOUND[dtype])


@pytest.mark.parametrize("skip_empty", [False, True])
def test_tiles_without_a_listed_pair(skip_empty, device):
    # queries of one half list keys of the other: half of the tiles are empty
    N, K = 64, 5
    index = torch.stack([torch.randperm(32)[:K] + (32 if i < 32 else 0) for i in range(N)])
    dictionary = KNNDictionary.from_index(index.unsqueeze(0).to(device), N)
    inputs, dout = make_inputs(1, 1, N, N, 16, torch.float32, device, bias=True)
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    q, k, v, bias = leaves.values()
    bits, bits_transposed = dictionary.bits(), dictionary.bits_transposed()
    out = registration.attend(q, k, v, bits, bits_transposed, bias, 0.3, skip_empty=skip_empty)
    grads = torch.autograd.grad(out, tuple(leaves.values()), dout)
    results = {"out": out.detach()} | dict(zip(leaves, grads, strict=True))
    assert_close(results, exact(inputs, dictionary, dout, scale=0.3), BOUND[torch.float32])


def test_empty_row_gives_zero_and_zero_gradient(device):
    dictionary = make_dictionary(2, 10, 12, 3, device)
    inputs, dout = make_inputs(2, 2, 10, 12, 8, torch.float32, device, bias=True)
    results = run(inputs, dictionary, dout, "triton")
    assert not results["out"][:, :, 2].any()
    assert not results["q"][:, :, 2].any()
    assert not results["bias"][:, 2].any()
    assert results["out"][:, :, 1].abs().min() > 0


def test_window_of_empty_rows_only(device):
    dictionary = KNNDictionary.from_index(torch.full((1, 5, 2), -1, device=device), 6)
    inputs, dout = make_inputs(1, 1, 5, 6, 8, torch.float32, device)
    assert not any(x.any() for x in run(inputs, dictionary, dout, "triton").values())


@pytest.mark.parametrize("shape", [(0, 2, 5, 6), (2, 2, 0, 6)], ids=["no-window", "no-query"])
def test_nothing_to_do(shape, device):
    B, heads, N, M = shape
    dictionary = KNNDictionary(torch.zeros(B, N, 2, dtype=torch.int32, device=device), M)
    inputs, dout = make_inputs(B, heads, N, M, 8, torch.float32, device, bias=True)
    results = run(inputs, dictionary, dout, "triton")
    assert results["out"].shape == (B, heads, N, 8)
    assert not results["k"].any()
    assert not results["bias"].any()


def test_lse_is_the_base_2_logarithm_of_the_denominator(device):
    dictionary = make_dictionary(1, 9, 11, 4, device)
    inputs, _ = make_inputs(1, 2, 9, 11, 8, torch.float32, device)
    _, lse = torch.ops.common_kernels.knn_attention_fwd(
        *inputs.values(), dictionary.bits(), None, None, 0.5, False, True
    )
    logits = 0.5 * inputs["q"].double() @ inputs["k"].double().mT
    logits = logits.masked_fill(~dictionary.allowed().unsqueeze(1), float("-inf"))
    expected = logits.logsumexp(dim=-1) * torch.tensor(2.0).log().reciprocal()
    torch.testing.assert_close(lse.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.isneginf(lse[:, :, 2]).all()


def test_strided_inputs(device):
    B, heads, N, head_dim = 2, 2, 21, 30
    dictionary = make_dictionary(B, N, N, 5, device)
    projected = torch.randn(B, N, 3, heads, head_dim, generator=torch.Generator().manual_seed(0)).to(device)
    q, k, v = projected.permute(2, 0, 3, 1, 4)
    inputs, dout = make_inputs(B, heads, N, N, head_dim, torch.float32, device, bias=True)
    strided = {
        "q": q,
        "k": k[:1].expand(B, -1, -1, -1),
        "v": v.mT.contiguous().mT,
        "bias": inputs["bias"].mT.contiguous().mT,
    }
    assert not any(x.is_contiguous() for x in strided.values())
    dout = dout.transpose(1, 2).contiguous().transpose(1, 2)
    results = run(strided, dictionary, dout, "triton")
    assert_close(results, exact(strided, dictionary, dout), BOUND[torch.float32])


@pytest.mark.parametrize("wanted", [("q",), ("k",), ("v",), ("bias",), ("k", "bias")], ids="-".join)
def test_gradients_of_some_inputs_only(wanted, device):
    dictionary = make_dictionary(1, 20, 25, 5, device)
    inputs, dout = make_inputs(1, 2, 20, 25, 8, torch.float32, device, bias=True)
    results = run(inputs, dictionary, dout, "triton", wanted=wanted)
    assert_close(results, exact(inputs, dictionary, dout, wanted=wanted), BOUND[torch.float32])


def test_inference_keeps_nothing_for_a_backward(device):
    dictionary = make_dictionary(1, 10, 10, 3, device)
    inputs, _ = make_inputs(1, 1, 10, 10, 8, torch.float32, device)
    q = inputs["q"].requires_grad_()
    with torch.no_grad():
        out = knn_attention(q, inputs["k"], inputs["v"], dictionary, backend="triton")
    assert not out.requires_grad


@silent_overflow
def test_large_logits_do_not_overflow(device):
    dictionary = make_dictionary(1, 12, 40, 6, device)
    inputs, dout = make_inputs(1, 1, 12, 40, 8, torch.float32, device)
    results = run(inputs, dictionary, dout, "triton", scale=200.0)
    # an error of the logits is an error of the exponent: the bound grows with them
    assert_close(results, exact(inputs, dictionary, dout, scale=200.0), 1e-3)


def test_bias_that_forbids_every_listed_key_gives_zero(device):
    dictionary = make_dictionary(1, 6, 6, 3, device)
    inputs, dout = make_inputs(1, 1, 6, 6, 8, torch.float32, device, bias=True)
    inputs["bias"][:, 4] = float("-inf")
    results = run(inputs, dictionary, dout, "triton")
    assert not results["out"][:, :, 4].any()
    assert all(torch.isfinite(x).all() for x in results.values())


@silent_overflow
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("where", ["q", "k", "v", "dout"])
def test_non_finite_value_reaches_only_what_lists_it(where, value, device):
    N = M = 40
    dictionary = make_dictionary(1, N, M, 2, device)
    inputs, dout = make_inputs(1, 1, N, M, 8, torch.float32, device)
    clean = run(inputs, dictionary, dout, "triton")
    at = 7
    poisoned = {name: x.clone() for name, x in inputs.items()} | {"dout": dout.clone()}
    poisoned[where][0, 0, at] = value
    results = run({name: poisoned[name] for name in "qkv"}, dictionary, poisoned["dout"], "triton")

    listed = dictionary.allowed()[0]  # (N, M)
    rows = listed[:, at] if where in "kv" else torch.arange(N, device=device) == at
    keys = listed[rows].any(dim=0)
    assert 0 < int(rows.sum()) < N
    assert 0 < int(keys.sum()) < M
    touched = {"out": rows, "q": rows, "k": keys, "v": keys}
    for name, spoiled in touched.items():
        torch.testing.assert_close(
            results[name][0, 0, ~spoiled], clean[name][0, 0, ~spoiled], rtol=1e-5, atol=1e-6
        )
    if where == "v":
        assert not torch.isfinite(results["out"][0, 0, rows]).any()


def test_repeats_and_the_order_of_windows_change_no_bit(device):
    dictionary = make_dictionary(3, 40, 40, 6, device)
    inputs, dout = make_inputs(3, 1, 40, 40, 16, torch.float32, device)
    first = run(inputs, dictionary, dout, "triton")
    again = run(inputs, dictionary, dout, "triton")
    assert all(torch.equal(first[name], again[name]) for name in first)
    order = torch.tensor([2, 0, 1], device=device)
    moved = run(
        {name: x[order] for name, x in inputs.items()},
        KNNDictionary.from_index(dictionary.index[order], 40),
        dout[order],
        "triton",
    )
    assert all(torch.equal(moved[name], first[name][order]) for name in first)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own doing
def test_operators_pass_opcheck(device):
    dictionary = make_dictionary(1, 8, 8, 3, device)
    inputs, dout = make_inputs(1, 2, 8, 8, 4, torch.float32, device, bias=True)
    q, k, v, bias = (x.requires_grad_() for x in inputs.values())
    bits, bits_transposed = dictionary.bits(), dictionary.bits_transposed()
    ops = torch.ops.common_kernels
    forward = (q, k, v, bits, bits_transposed, bias, 0.5, False, True)
    torch.library.opcheck(ops.knn_attention_fwd.default, forward)
    with torch.no_grad():
        out, lse = ops.knn_attention_fwd(*forward)
        backward = (dout, q, k, v, out, lse, bits, bits_transposed, bias, 0.5, False)
        plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in backward]
    torch.library.opcheck(ops.knn_attention_bwd.default, (*plain, True, True, True))
    torch.library.opcheck(ops.knn_attention_bwd.default, (*plain, False, True, False))


def test_compiles_as_one_graph(device):
    dictionary = make_dictionary(1, 8, 8, 3, device)
    inputs, dout = make_inputs(1, 2, 8, 8, 4, torch.float32, device, bias=True)
    # built outside: the packed forms are made once, not in every step
    dictionary.bits(), dictionary.bits_transposed()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def attend(q, k, v, bias):
        return knn_attention(q, k, v, dictionary, bias=bias, backend="triton")

    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    out = attend(*leaves.values())
    grads = torch.autograd.grad(out, tuple(leaves.values()), dout)
    eager = run(inputs, dictionary, dout, "triton")
    assert all(torch.equal(a, b) for a, b in zip((out.detach(), *grads), eager.values(), strict=True))


def test_second_derivative_is_refused(device):
    dictionary = make_dictionary(1, 4, 4, 2, device)
    inputs, _ = make_inputs(1, 1, 4, 4, 4, torch.float32, device)
    q = inputs["q"].requires_grad_()
    out = knn_attention(q, inputs["k"], inputs["v"], dictionary, backend="triton")
    (dq,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        dq.sum().backward()


def test_missing_transposed_bits_are_an_error(device):
    dictionary = make_dictionary(1, 4, 4, 2, device)
    inputs, dout = make_inputs(1, 1, 4, 4, 4, torch.float32, device)
    k = inputs["k"].requires_grad_()
    out, _ = torch.ops.common_kernels.knn_attention_fwd(
        inputs["q"], k, inputs["v"], dictionary.bits(), None, None, 0.5, False, True
    )
    with pytest.raises(ValueError, match="bits_transposed must be given"):
        out.backward(dout)
