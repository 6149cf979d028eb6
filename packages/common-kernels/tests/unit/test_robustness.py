# SPDX-License-Identifier: Apache-2.0
"""Odd calls, over every backend of a CPU."""

import contextlib
import copy
import pickle

import pytest
import torch
from common_kernels import (
    BackendUnavailableError,
    KNNDictionary,
    _native,
    explain_backends,
    knn_attention,
    knn_dictionary,
)
from common_kernels.bench.flops import FLOP_FORMULAS
from common_kernels.testing import random_dictionary, strided
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(_native.why_no_native() is not None, reason="no compiled kernels")
)
CSR = pytest.param(
    "csr", marks=pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs torch with MKL")
)
every_backend = pytest.mark.parametrize("backend", ["reference", "chunked", "sdpa", CSR, NATIVE])
every_builder = pytest.mark.parametrize("builder", ["reference", "topk", NATIVE])
B, HEADS, N, M = 2, 3, 9, 12


def draw(head_dim=8, *, k=4, padding=0.0, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(B, HEADS, N, head_dim, generator=g).to(dtype)
    key, value = torch.randn(2, B, HEADS, M, head_dim, generator=g).to(dtype).unbind()
    return q, key, value, random_dictionary(B, N, k, num_keys=M, padding=padding, seed=seed)


def close(a, b, dtype=torch.float32):
    tolerance = 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every_backend
@pytest.mark.parametrize("head_dim", [1, 7, 30])
@pytest.mark.parametrize("k", [1, M])
def test_head_dims_and_lengths_of_lists(backend, head_dim, k):
    q, key, value, dictionary = draw(head_dim, k=k)
    expected = knn_attention(q, key, value, dictionary, backend="reference")
    close(knn_attention(q, key, value, dictionary, backend=backend), expected)


@every_backend
def test_one_token_and_no_window(backend):
    one = torch.ones(1, 1, 1, 4)
    dictionary = KNNDictionary(torch.zeros(1, 1, 1, dtype=torch.int32), 1)
    assert torch.equal(knn_attention(one, one, 3 * one, dictionary, backend=backend), 3 * one)
    none = KNNDictionary(torch.zeros(0, 1, 1, dtype=torch.int32), 1)
    assert knn_attention(one[:0], one[:0], one[:0], none, backend=backend).shape == (0, 1, 1, 4)


@every_backend
@pytest.mark.parametrize("layout", ["gap", "transposed", "offset", "expanded"])
def test_layouts(backend, layout):
    q, key, value, dictionary = draw(padding=0.3)
    inputs = [strided(x, layout) for x in (q, key, value)]
    expected = knn_attention(*(x.contiguous() for x in inputs), dictionary, backend="reference")
    close(knn_attention(*inputs, dictionary, backend=backend), expected)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_and_inference_mode(backend, dtype):
    q, key, value, dictionary = draw(padding=0.2)
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        out = knn_attention(q, key, value, dictionary, backend=backend)
    assert out.dtype == dtype
    half = [x.to(dtype).double() for x in (q, key, value)]
    close(out.double(), knn_attention(*half, dictionary, backend="reference"), dtype)


@every_backend
def test_nan_and_infinity_in_keys_that_nobody_lists(backend):
    q, key, value, dictionary = draw()
    dictionary = KNNDictionary.from_index(dictionary.index.masked_fill(dictionary.index == 5, -1), M)
    expected = knn_attention(q, key, value, dictionary, backend="reference")
    key[:, :, 5], value[:, :, 5] = float("nan"), float("inf")
    if backend == "sdpa":  # documented: it weighs all values
        value[:, :, 5] = 0.0
        key[:, :, 5] = 1e30
    close(knn_attention(q, key, value, dictionary, backend=backend), expected)


@every_backend
@pytest.mark.parametrize("padding", [0.0, 0.5])
def test_rows_closed_by_the_bias_get_zero_and_give_no_gradient(backend, padding):
    q, key, value, dictionary = draw(padding=padding)
    bias = torch.zeros(HEADS, N, M)
    bias[1, 2], bias[0, 4, :7] = float("-inf"), float("-inf")
    inputs = [x.requires_grad_() for x in (q, key, value, bias)]
    out = knn_attention(*inputs[:3], dictionary, bias=bias, backend=backend)
    assert torch.equal(out[:, 1, 2], torch.zeros_like(out[:, 1, 2]))
    gradients = torch.autograd.grad(out.square().sum(), inputs)
    expected = knn_attention(*inputs[:3], dictionary, bias=bias, backend="reference")
    close(out, expected)
    for got, other in zip(gradients, torch.autograd.grad(expected.square().sum(), inputs), strict=True):
        assert got.isfinite().all()
        close(got, other)


@every_backend
def test_head_dim_zero_is_refused(backend):
    q, key, value, dictionary = draw()
    with pytest.raises(ValueError, match="head_dim must be at least 1, got q of shape"):
        knn_attention(q[..., :0], key[..., :0], value[..., :0], dictionary, backend=backend)


@every_backend
def test_a_second_derivative_is_right_or_says_what_to_do(backend):
    q, key, value, dictionary = draw()
    q.requires_grad_()
    (grad,) = torch.autograd.grad(
        knn_attention(q, key, value, dictionary, backend=backend).square().sum(), q, create_graph=True
    )
    if backend in ("reference", "chunked"):
        assert torch.autograd.grad(grad.square().sum(), q)[0].isfinite().all()
        return
    with pytest.raises(NotImplementedError, match=rf"the {backend} backend.*backend='reference'"):
        torch.autograd.grad(grad.square().sum(), q)


def test_auto_takes_a_backend_that_torch_func_can_differentiate():
    q, key, value, dictionary = draw()

    def gradient(backend):
        return torch.func.grad(
            lambda q: knn_attention(q, key, value, dictionary, backend=backend).square().sum()
        )(q)

    close(gradient("auto"), gradient("reference"))


@every_backend
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch runs its own sdpa entry by entry
def test_vmap_of_values_and_gradients(backend, with_bias):
    g = torch.Generator().manual_seed(3)
    _, _, _, dictionary = draw()
    q = torch.randn(B, HEADS, N, 8, 4, generator=g)  # mapped along the last axis
    key, value = torch.randn(2, 4, B, HEADS, M, 8, generator=g).unbind()
    bias = torch.randn(HEADS, N, M, generator=g) if with_bias else None

    def attend(q, key, value, dictionary, bias):
        return knn_attention(q, key, value, dictionary, bias=bias, backend=backend)

    def loss(*arguments):
        return attend(*arguments).square().sum()

    dims = (-1, 0, 0, None, None)
    got = torch.func.vmap(attend, in_dims=dims)(q, key, value, dictionary, bias)
    entries = [(q[..., n], key[n], value[n], dictionary, bias) for n in range(4)]
    close(got, torch.stack([attend(*entry) for entry in entries]))
    if backend == "chunked":  # checkpoints are no transform
        return
    if backend in ("csr", "native"):
        with pytest.raises(BackendUnavailableError, match=r"has no rule for torch\.func\.grad"):
            torch.func.grad(lambda q: loss(q, key[0], value[0], dictionary, bias))(q[..., 0])
        return
    places = (0, 1, 4) if with_bias else (0, 1)
    grads = torch.func.vmap(torch.func.grad(loss, argnums=places), in_dims=dims)(
        q, key, value, dictionary, bias
    )
    for place, grad in zip(places, grads, strict=True):
        expected = [torch.func.grad(loss, argnums=place)(*entry) for entry in entries]
        close(grad, torch.stack(expected))


@every_builder
def test_vmap_of_the_dictionary(builder):
    x = torch.randn(3, 2, 10, 4, generator=torch.Generator().manual_seed(0))
    if builder == "topk":
        with pytest.raises(RuntimeError, match="vmap"):
            torch.func.vmap(lambda x: knn_dictionary(x, 3, backend=builder))(x)
        return
    mapped = torch.func.vmap(lambda x: knn_dictionary(x, 3, backend=builder))(x)
    for n in range(3):
        alone = knn_dictionary(x[n], 3, backend=builder)
        assert torch.equal(mapped.index[n].sort(dim=-1).values, alone.index.sort(dim=-1).values)


@every_builder
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_neither_autocast_nor_fast_products_change_the_lists(builder, precision):
    x = torch.randn(2, 60, 32, generator=torch.Generator().manual_seed(0))
    expected = knn_dictionary(x, 7, backend=builder).allowed()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = knn_dictionary(x, 7, backend=builder).allowed()
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_shapes_without_numbers(kind):
    mode = FakeTensorMode() if kind == "fake" else contextlib.nullcontext()
    with mode:
        device = "meta" if kind == "meta" else "cpu"
        tokens = torch.empty(2, 6, 4, device=device)
        q = torch.empty(2, 3, 6, 4, device=device, requires_grad=True)
        regions = torch.zeros(1, 6, dtype=torch.long, device=device)
        dictionary = knn_dictionary(tokens, 3, regions=regions)
        out = knn_attention(q, q, q, dictionary)
        (grad,) = torch.autograd.grad(out.sum(), q)
    assert out.shape == grad.shape == (2, 3, 6, 4)


class TestDictionaryAsAnObject:
    def test_copies_and_pickles_hold_the_lists(self):
        *_, dictionary = draw(padding=0.3)
        dictionary.bits()
        for other in (copy.deepcopy(dictionary), pickle.loads(pickle.dumps(dictionary))):
            assert torch.equal(other.index, dictionary.index)
            assert other.index is not dictionary.index
            assert repr(other) == repr(dictionary)
            flags = ("num_keys", "is_full", "has_empty_rows")
            assert [getattr(other, f) for f in flags] == [getattr(dictionary, f) for f in flags]
            assert torch.equal(other.bits(), dictionary.bits())

    def test_to_another_device(self):
        *_, dictionary = draw()
        assert dictionary.to("cpu") is dictionary
        moved = dictionary.to("meta")
        assert moved.device.type == "meta"
        assert (moved.num_keys, moved.is_full) == (M, True)

    def test_is_a_tree_of_one_tensor(self):
        *_, dictionary = draw()
        leaves, spec = pytree.tree_flatten({"listed": dictionary})
        assert [leaf is dictionary.index for leaf in leaves] == [True]
        again = pytree.tree_unflatten(leaves, spec)["listed"]
        assert repr(again) == repr(dictionary)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@every_backend
def test_one_graph_serves_all_sizes(backend):
    torch.compiler.reset()
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    def attend(q, dictionary):
        return knn_attention(q, q, q, dictionary, backend=backend)

    compiled = torch.compile(attend, backend=count, fullgraph=True, dynamic=True)
    for windows in (5, 6, 7):  # no other size, or torch takes them for equal
        q = torch.randn(windows, 2, 8, 4, generator=torch.Generator().manual_seed(windows))
        dictionary = random_dictionary(windows, 8, 3, seed=windows)
        close(compiled(q, dictionary), attend(q, dictionary))
    torch.compiler.reset()
    assert len(graphs) == 1


@every_backend
def test_auto_and_bias(backend):
    q = torch.zeros(1, 1, 1024, 4)
    bias = torch.zeros(1, 1024, 1024, requires_grad=True)
    dictionary = KNNDictionary(torch.arange(128, dtype=torch.int32).expand(1, 1024, -1), 1024, is_full=True)
    reason = explain_backends("knn_attention", q, q, q, dictionary, bias=bias)[backend]
    assert reason is None  # what runs before is faster, but no rule of its own speaks against it


@pytest.mark.skipif(_native.why_no_native() is not None, reason="no compiled kernels")
def test_torch_counts_the_operations_of_the_compiled_kernels():
    q, key, value, dictionary = draw(5, k=7)
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as forward:
        out = knn_attention(q.requires_grad_(), key, value, dictionary, backend="native")
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as backward:
        out.sum().backward()
    product = 2 * B * HEADS * N * 7 * 5  # multiply and add, windows, heads, queries, keys, channels
    assert (forward.get_total_flops(), backward.get_total_flops()) == (2 * product, 5 * product)
