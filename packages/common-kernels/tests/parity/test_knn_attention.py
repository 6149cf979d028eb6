# SPDX-License-Identifier: Apache-2.0
"""Every CPU backend of knn_attention against a dense masked softmax in float64."""

import pytest
import torch
from common_kernels import KNNDictionary, knn_attention
from common_kernels.ops.knn_attention import chunked

BACKENDS = [
    "reference",
    "chunked",
    "sdpa",
    pytest.param(
        "csr", marks=pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs torch with MKL")
    ),
]
NAMES = ("q", "k", "v", "bias", "scale")
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def oracle(q, k, v, allowed, bias=None, scale=None, cosine=False):
    """Attend densely in the dtype of the inputs; an empty row gets 0."""
    if cosine:
        q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    if scale is None:
        scale = 1.0 if cosine else q.shape[-1] ** -0.5
    if isinstance(scale, torch.Tensor) and scale.ndim:
        scale = scale[None, :, None, None]
    logits = torch.einsum("bhnd,bhmd->bhnm", q, k) * scale
    if bias is not None:
        logits = logits + bias
    weights = torch.where(allowed[:, None], logits, -1e300).softmax(dim=-1) * allowed[:, None]
    return torch.einsum("bhnm,bhmd->bhnd", weights, v)


def case(B=2, heads=3, N=13, M=17, head_dim=8, K=5, *, padding=0.0, seed=0, bias=True, scale=True):
    """Draw float64 leaves by name, and a dictionary."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    leaves = {"q": randn(B, heads, N, head_dim), "k": randn(B, heads, M, head_dim)}
    leaves["v"] = randn(B, heads, M, head_dim)
    if bias:
        leaves["bias"] = randn(heads, N, M)
    if scale:
        leaves["scale"] = torch.rand(heads, generator=g, dtype=torch.float64) + 0.2
    index = torch.rand(B, N, M, generator=g).argsort(dim=-1)[..., :K]
    if padding:
        index = index.masked_fill(torch.rand(index.shape, generator=g) < padding, -1)
        index[:, :2] = -1
        index[:, -1] = -1
    return leaves, KNNDictionary.from_index(index, M)


def leaf(x, dtype):
    return x.to(dtype).detach().requires_grad_()


def evaluate(function, leaves, dout):
    """Return the output and the gradients of the leaves, by name."""
    out = function(**leaves)
    grads = torch.autograd.grad((out * dout).sum(), list(leaves.values()))
    return {"out": out.detach()} | dict(zip(leaves, grads, strict=True))


def compare(backend, leaves, dictionary, dtype, **options):
    """Return the relative l2 errors of output and gradients, of the same rounded inputs."""
    dout = torch.randn(leaves["q"].shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    dout = dout.to(dtype)
    rounded = {name: leaf(x, dtype) for name, x in leaves.items()}
    exact = {name: leaf(x.detach(), torch.float64) for name, x in rounded.items()}
    allowed = dictionary.allowed()
    got = evaluate(
        lambda q, k, v, **rest: knn_attention(q, k, v, dictionary, backend=backend, **rest, **options),
        rounded,
        dout,
    )
    expected = evaluate(lambda **rest: oracle(allowed=allowed, **rest, **options), exact, dout.double())
    for name, x in got.items():
        assert x.dtype == dtype, name
        assert x.shape == expected[name].shape, name
        assert x.isfinite().all(), name
    if dictionary.has_empty_rows:
        empty = dictionary.empty_rows()[:, None, :, None]
        assert (got["out"].masked_select(empty) == 0).all()
        assert (got["q"].masked_select(empty) == 0).all()
        if "bias" in got:
            everywhere = dictionary.empty_rows().all(dim=0)
            assert (got["bias"][:, everywhere] == 0).all()
        unlisted = ~allowed.any(dim=1)[:, None, :, None]
        assert (got["k"].masked_select(unlisted) == 0).all()
        assert (got["v"].masked_select(unlisted) == 0).all()
    return {
        name: ((got[name].double() - x).norm() / x.norm().clamp(min=1e-300)).item()
        for name, x in expected.items()
    }


@every_backend
@pytest.mark.parametrize("padding", [0.0, 0.5])
@pytest.mark.parametrize("head_dim", [1, 8, 15, 30])
def test_float64(backend, head_dim, padding):
    leaves, dictionary = case(head_dim=head_dim, padding=padding)
    assert dictionary.has_empty_rows == bool(padding)
    for name, error in compare(backend, leaves, dictionary, torch.float64).items():
        assert error <= 1e-12, name


@every_backend
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("extras", [{}, {"bias": True}, {"scale": True}, {"bias": True, "scale": True}])
@pytest.mark.parametrize(("N", "M", "K"), [(1, 1, 1), (5, 1, 1), (1, 9, 3), (33, 7, 7), (7, 33, 2)])
def test_float64_options_and_shapes(backend, N, M, K, extras, cosine):
    leaves, dictionary = case(N=N, M=M, K=K, head_dim=6, **({"bias": False, "scale": False} | extras))
    dout = torch.ones(2, 3, N, 6, dtype=torch.float64)
    options = {"cosine": cosine}
    got, expected = (
        evaluate(function, {name: leaf(x, torch.float64) for name, x in leaves.items()}, dout)
        for function in (
            lambda q, k, v, **rest: knn_attention(q, k, v, dictionary, backend=backend, **rest, **options),
            lambda **rest: oracle(allowed=dictionary.allowed(), **rest, **options),
        )
    )
    for name, x in expected.items():
        torch.testing.assert_close(got[name], x, rtol=0, atol=1e-12, msg=name)


@every_backend
@pytest.mark.parametrize("scale", [0.37, torch.tensor(0.37, dtype=torch.float64)])
def test_one_scale_for_all(backend, scale):
    leaves, dictionary = case(scale=False)
    out = knn_attention(**leaves, dictionary=dictionary, scale=scale, backend=backend)
    expected = oracle(**leaves, allowed=dictionary.allowed(), scale=0.37)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@every_backend
@pytest.mark.parametrize("padding", [0.0, 0.4])
@pytest.mark.parametrize("head_dim", [15, 32])
def test_float32(backend, head_dim, padding):
    leaves, dictionary = case(N=65, M=70, K=9, head_dim=head_dim, padding=padding)
    for name, error in compare(backend, leaves, dictionary, torch.float32).items():
        assert error <= (2e-6 if name == "out" else 1e-5), name


@every_backend
@pytest.mark.parametrize("padding", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half(backend, dtype, padding):
    leaves, dictionary = case(N=65, M=70, K=9, head_dim=16, padding=padding)
    del leaves["scale"]  # rounded into q before any backend sees it
    eager = compare("sdpa", leaves, dictionary, dtype)
    rounding = torch.finfo(dtype).eps
    for name, error in compare(backend, leaves, dictionary, dtype).items():
        assert error <= 2 * eager[name] + rounding, name
        assert error <= 20 * rounding, name


@every_backend
def test_all_keys_give_dense_attention(backend):
    leaves, dictionary = case(K=17, scale=False)
    expected = torch.nn.functional.scaled_dot_product_attention(
        leaves["q"], leaves["k"], leaves["v"], attn_mask=leaves["bias"]
    )
    out = knn_attention(**leaves, dictionary=dictionary, backend=backend)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@every_backend
def test_strided_and_expanded_inputs(backend):
    leaves, dictionary = case(scale=False, bias=False, padding=0.3)
    layouts = {
        "transposed": {n: x.transpose(1, 2).contiguous().transpose(1, 2) for n, x in leaves.items()},
        "channels first": {n: x.mT.contiguous().mT for n, x in leaves.items()},
        "stepped": {n: x.repeat_interleave(2, dim=-1)[..., ::2] for n, x in leaves.items()},
        "expanded": {n: x[:1, :1].expand_as(x) for n, x in leaves.items()},
    }
    dout = torch.randn(2, 3, 13, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bias = torch.randn(1, 13, 1, dtype=torch.float64).expand(3, 13, 17)
    for layout, values in layouts.items():
        inputs = {n: x.detach().requires_grad_() for n, x in (values | {"bias": bias}).items()}
        assert not all(x.is_contiguous() for x in inputs.values())
        got = evaluate(
            lambda q, k, v, bias: knn_attention(q, k, v, dictionary, bias=bias, backend=backend), inputs, dout
        )
        dense = {n: x.detach().contiguous().requires_grad_() for n, x in inputs.items()}
        expected = evaluate(lambda **rest: oracle(allowed=dictionary.allowed(), **rest), dense, dout)
        for name, x in expected.items():
            torch.testing.assert_close(got[name], x, rtol=0, atol=1e-12, msg=f"{layout}: {name}")


@every_backend
@pytest.mark.parametrize("wanted", [("q",), ("k",), ("v",), ("bias",), ("scale",), ("k", "bias"), ("q", "v")])
def test_any_subset_of_gradients(backend, wanted):
    leaves, dictionary = case(padding=0.3)

    def run(function):
        inputs = {n: x.clone().requires_grad_(n in wanted) for n, x in leaves.items()}
        function(inputs).square().sum().backward()
        return {n: x.grad for n, x in inputs.items()}

    got = run(
        lambda x: knn_attention(
            x["q"], x["k"], x["v"], dictionary, bias=x["bias"], scale=x["scale"], backend=backend
        )
    )
    expected = run(lambda x: oracle(allowed=dictionary.allowed(), **x))
    for name in NAMES:
        assert (got[name] is not None) == (name in wanted)
        if name in wanted:
            torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-12, msg=name)


@every_backend
def test_gradcheck(backend):
    leaves, dictionary = case(B=1, heads=2, N=8, M=8, K=3, head_dim=4, padding=0.2)
    inputs = [x.requires_grad_() for x in leaves.values()]

    def function(q, k, v, bias, scale):
        return knn_attention(q, k, v, dictionary, bias=bias, scale=scale, backend=backend)

    assert torch.autograd.gradcheck(function, inputs, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("elements", [1, 3 * 5 * 8 * 4, 3 * 5 * 8 * 13])
def test_chunk_length_changes_nothing(monkeypatch, elements):
    leaves, dictionary = case(padding=0.3)
    monkeypatch.setattr(chunked, "_GATHERED_ELEMENTS", elements)  # 1, 4 and 13 of 13 queries at a time
    for name, error in compare("chunked", leaves, dictionary, torch.float64).items():
        assert error <= 1e-12, name


@every_backend
def test_large_logits_do_not_overflow(backend):
    leaves, dictionary = case(scale=False, bias=False)
    leaves["q"] = leaves["q"] * 1e4
    out = knn_attention(**leaves, dictionary=dictionary, backend=backend)
    torch.testing.assert_close(out, oracle(**leaves, allowed=dictionary.allowed()), rtol=0, atol=1e-9)
