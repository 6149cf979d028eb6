# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels import BackendUnavailableError, KNNDictionary, knn_attention, knn_dictionary
from common_kernels._triton import INTERPRETED
from common_kernels.bench.flops import FLOP_FORMULAS
from torch.utils.flop_counter import FlopCounterMode

CSR = pytest.param(
    "csr", marks=pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs torch with MKL")
)
every_backend = pytest.mark.parametrize("backend", ["reference", "chunked", "sdpa", CSR])
B, HEADS, N, M, D, K = 3, 2, 11, 14, 6, 4


def draw(seed=0, dtype=torch.float64, **options):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(B, HEADS, N, D, generator=g, dtype=torch.float64).to(dtype)
    k, v = torch.randn(2, B, HEADS, M, D, generator=g, dtype=torch.float64).to(dtype).unbind()
    bias = torch.randn(HEADS, N, M, generator=g, dtype=torch.float64).to(dtype)
    return q, k, v, bias, lists(g)


def lists(g):
    """Draw distinct keys with some slots unused and one empty row."""
    index = torch.rand(B, N, M, generator=g).argsort(dim=-1)[..., :K]
    index = index.masked_fill(torch.rand(B, N, K, generator=g) < 0.2, -1)
    index[:, 3] = -1
    return index


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@every_backend
def test_hand_case(backend):
    q = torch.tensor([[[[1.0], [1.0], [1.0]]]])
    k = torch.tensor([[[[0.0], [2.0**0.5], [9.0]]]])
    v = torch.tensor([[[[1.0], [3.0], [100.0]]]])
    dictionary = KNNDictionary.from_index(torch.tensor([[[0, 1], [2, -1], [-1, -1]]]), 3)
    out = knn_attention(q, k, v, dictionary, scale=0.5 * 2**0.5, backend=backend)
    e = torch.tensor(1.0).exp()
    torch.testing.assert_close(out.flatten(), torch.stack([(1 + 3 * e) / (1 + e), v[0, 0, 2, 0], 0 * e]))


@every_backend
def test_order_of_slots_does_not_matter(backend):
    q, k, v, bias, index = draw()
    shuffled = index.gather(-1, torch.rand(index.shape).argsort(dim=-1))
    a, b = (
        knn_attention(q, k, v, KNNDictionary(i.int(), M), bias=bias, backend=backend)
        for i in (index, shuffled)
    )
    close(a, b)


@every_backend
@pytest.mark.parametrize("index", [[[1, 0, 1]], [[1, 1, 0]], [[0, 1, 0]]])
def test_a_key_listed_twice_counts_once(backend, index):
    q, k, v = (
        torch.ones(1, 1, 1, 1),
        torch.tensor([[[[0.0], [1.0], [9.0]]]]),
        torch.tensor([[[[2.0], [5.0], [7.0]]]]),
    )
    twice = knn_attention(q, k, v, KNNDictionary.from_index(torch.tensor([index]), 3), backend=backend)
    once = knn_attention(q, k, v, KNNDictionary.from_index(torch.tensor([[[0, 1]]]), 3), backend=backend)
    torch.testing.assert_close(twice, once)


@every_backend
def test_relabelled_keys_change_nothing(backend):
    q, k, v, bias, index = draw()
    order = torch.randperm(M, generator=torch.Generator().manual_seed(5))
    place = order.argsort()  # where key j went
    moved = torch.where(index < 0, -1, place[index.clamp(min=0)])
    a = knn_attention(q, k, v, KNNDictionary.from_index(index, M), bias=bias, backend=backend)
    b = knn_attention(
        q,
        k[:, :, order],
        v[:, :, order],
        KNNDictionary.from_index(moved, M),
        bias=bias[..., order],
        backend=backend,
    )
    close(a, b)


@every_backend
def test_constant_on_a_row_of_the_bias_changes_nothing(backend):
    q, k, v, bias, index = draw()
    dictionary = KNNDictionary.from_index(index, M)
    constant = 3 * torch.randn(HEADS, N, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b = (knn_attention(q, k, v, dictionary, bias=x, backend=backend) for x in (bias, bias + constant))
    close(a, b)


@every_backend
def test_windows_are_independent(backend):
    q, k, v, bias, index = draw()
    whole = knn_attention(q, k, v, KNNDictionary.from_index(index, M), bias=bias, backend=backend)
    for b in range(B):
        one = slice(b, b + 1)
        alone = KNNDictionary.from_index(index[one], M)
        close(whole[one], knn_attention(q[one], k[one], v[one], alone, bias=bias, backend=backend))


@every_backend
def test_unlisted_nan(backend):
    q, k, v, bias, index = draw()
    index = index.masked_fill(index == 5, -1)
    index[1:, 0] = 5  # other windows list key 5: of their own
    dictionary = KNNDictionary.from_index(index, M)
    clean = knn_attention(q, k, v, dictionary, bias=bias, backend=backend)
    v = v.clone()
    v[0, :, 5] = float("nan")
    v[0, :, 5, 0] = float("inf")
    out = knn_attention(q, k, v, dictionary, bias=bias, backend=backend)
    assert torch.equal(out[1:], clean[1:])
    listed = ~dictionary.empty_rows()[0]
    if backend == "sdpa":  # documented
        assert out[0][:, listed].isnan().all()
    else:
        assert torch.equal(out[0], clean[0])


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_are_bitwise_equal(backend, dtype):
    q, k, v, bias, index = draw(dtype=dtype)
    dictionary = KNNDictionary.from_index(index, M)

    def run():
        inputs = [x.detach().clone().requires_grad_() for x in (q, k, v, bias)]
        out = knn_attention(*inputs[:3], dictionary, bias=inputs[3], backend=backend)
        return [out, *torch.autograd.grad(out.float().square().sum(), inputs)]

    for a, b in zip(run(), run(), strict=True):
        assert torch.equal(a, b)


@every_backend
def test_no_windows(backend):
    q = torch.zeros(0, HEADS, N, D, requires_grad=True)
    k = torch.zeros(0, HEADS, M, D, requires_grad=True)
    dictionary = KNNDictionary(torch.zeros(0, N, K, dtype=torch.int32), M)
    bias = torch.zeros(HEADS, N, M, requires_grad=True)
    out = knn_attention(q, k, k, dictionary, bias=bias, backend=backend)
    assert out.shape == q.shape
    # torch's own kernel drops the mask from the graph then
    inputs = [q, k] if backend == "sdpa" else [q, k, bias]
    for x, grad in zip(inputs, torch.autograd.grad(out.sum(), inputs), strict=True):
        assert torch.equal(grad, torch.zeros_like(x))


@every_backend
def test_autocast(backend):
    q, k, v, bias, index = draw(dtype=torch.float32)
    dictionary = KNNDictionary.from_index(index, M)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = knn_attention(q, k, v.bfloat16(), dictionary, bias=bias, backend=backend)
        unit = knn_attention(q, k, v, dictionary, cosine=True, scale=torch.ones(HEADS), backend=backend)
    assert out.dtype == unit.dtype == torch.bfloat16
    expected = knn_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), dictionary, bias=bias, backend=backend)
    assert torch.equal(out, expected)


@every_backend
def test_backward_under_autocast(backend):
    q, k, v, bias, index = draw(dtype=torch.float32)
    dictionary = KNNDictionary.from_index(index, M)
    inputs = [x.requires_grad_() for x in (q, k.clone(), v.clone(), bias)]

    def loss():
        return knn_attention(*inputs[:3], dictionary, bias=inputs[3], backend=backend).float().square().sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = torch.autograd.grad(loss(), inputs)
    for a, b in zip(got, torch.autograd.grad(loss(), inputs), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= 0.03 * b.norm()


@every_backend
def test_no_graph_without_gradients(backend):
    q, k, v, _, index = draw()
    q.requires_grad_()
    dictionary = KNNDictionary.from_index(index, M)
    with torch.no_grad():
        assert not knn_attention(q, k, v, dictionary, backend=backend).requires_grad


@every_backend
def test_second_derivative_is_right_or_refused(backend):
    q, k, v, _, index = draw()
    q.requires_grad_()
    dictionary = KNNDictionary.from_index(index, M)
    out = knn_attention(q, k, v, dictionary, backend=backend)
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    if backend in ("csr", "sdpa"):  # opaque: an error, never a silent zero
        with pytest.raises(RuntimeError):
            torch.autograd.grad(grad.square().sum(), q)
        return
    (got,) = torch.autograd.grad(grad.square().sum(), q)
    copy = q.detach().clone().requires_grad_()
    out = knn_attention(copy, k, v, dictionary, backend="reference")
    (grad,) = torch.autograd.grad(out.square().sum(), copy, create_graph=True)
    close(got, torch.autograd.grad(grad.square().sum(), copy)[0])


class TestErrors:
    @pytest.fixture
    def arguments(self):
        q, k, v, _, index = draw(dtype=torch.float32)
        return {"q": q, "k": k, "v": v, "dictionary": KNNDictionary.from_index(index, M)}

    def test_a_bare_index(self, arguments):
        index = arguments["dictionary"].index
        with pytest.raises(TypeError, match=r"must be a KNNDictionary, got Tensor; KNNDictionary.from_index"):
            knn_attention(**arguments | {"dictionary": index})

    def test_dtype(self, arguments):
        with pytest.raises(TypeError, match=r"q must have a floating dtype, got torch.int64"):
            knn_attention(**arguments | {"q": arguments["q"].long()})
        for name in ("q", "k", "v"):
            with pytest.raises(TypeError, match=r"q, k and v must have one dtype, got .*float64"):
                knn_attention(**arguments | {name: arguments[name].double()})

    @pytest.mark.parametrize(
        ("name", "cut", "message"),
        [
            ("q", (0,), r"q must be \(B, heads, N, head_dim\)"),
            ("v", (slice(None), slice(None), slice(1, None)), r"k and v \(B, heads, M, head_dim\)"),
            ("q", (slice(1),), "q and k may differ in length only"),
            ("q", (slice(None), slice(1)), "q and k may differ in length only"),
            ("q", (..., slice(1)), "q and k may differ in length only"),
        ],
    )
    def test_shapes(self, arguments, name, cut, message):
        with pytest.raises(ValueError, match=message):
            knn_attention(**arguments | {name: arguments[name][cut]})

    @pytest.mark.parametrize("shape", [(B, N + 1, M), (B + 1, N, M), (B, N, M + 1)])
    def test_stale_dictionary(self, arguments, shape):
        stale = KNNDictionary.from_index(torch.zeros(*shape[:2], 1, dtype=torch.long), shape[2])
        message = rf"must be of these windows.*\({shape[0]}, {shape[1]}, {shape[2]}\)"
        with pytest.raises(ValueError, match=message):
            knn_attention(**arguments | {"dictionary": stale})

    @pytest.mark.parametrize("shape", [(N, M), (1, N, M), (HEADS, 1, M), (B, HEADS, N, M)])
    def test_bias(self, arguments, shape):
        with pytest.raises(ValueError, match=r"bias must be \(heads, N, M\) = \(2, 11, 14\), got"):
            knn_attention(**arguments, bias=torch.zeros(shape))

    @pytest.mark.parametrize("shape", [(1,), (HEADS, 1), (HEADS + 1,)])
    def test_scale(self, arguments, shape):
        with pytest.raises(ValueError, match=r"scale must be a number or \(2,\), got shape"):
            knn_attention(**arguments, scale=torch.ones(shape))

    def test_device(self, arguments):
        dictionary = KNNDictionary(torch.zeros(B, N, 1, dtype=torch.int32, device="meta"), M)
        with pytest.raises(ValueError, match="must be on one device"):
            knn_attention(**arguments | {"dictionary": dictionary})
        with pytest.raises(ValueError, match="bias must be on the device of q"):
            knn_attention(**arguments, bias=torch.zeros(HEADS, N, M, device="meta"))

    def test_unknown_backend(self, arguments):
        with pytest.raises(
            ValueError, match=r"backend must be 'auto' or one of 'triton', 'native', 'csr'.*got 'flash'"
        ):
            knn_attention(**arguments, backend="flash")

    @pytest.mark.skipif(INTERPRETED, reason="the interpreter runs on the CPU")
    def test_triton_is_unavailable_on_the_cpu(self, arguments):
        with pytest.raises(BackendUnavailableError, match=r"backend='triton' of knn_attention cannot run"):
            knn_attention(**arguments, backend="triton")

    def test_csr_refuses_more_slots_than_keys(self, arguments):
        slots = torch.full((B, N, M + 1), -1, dtype=torch.int32)
        slots[..., 0] = 1
        arguments["dictionary"] = KNNDictionary(slots, M)
        with pytest.raises(BackendUnavailableError, match="csr"):
            knn_attention(**arguments, backend="csr")
        expected = arguments["v"][:, :, 1:2].expand(-1, -1, N, -1)
        torch.testing.assert_close(knn_attention(**arguments), expected)


@pytest.fixture
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("backend", ["sdpa", CSR])
def test_compiles_into_one_graph(backend, inside):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, D, generator=g)
    regions = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, -1, 2, 2, 2]])
    q, k, v = torch.randn(3, 2, HEADS, 12, D, generator=g).unbind()
    bias = torch.randn(HEADS, 12, 12, generator=g)

    def attend(q, k, v, bias, dictionary):
        return knn_attention(q, k, v, dictionary, bias=bias, backend=backend)

    def build_and_attend(q, k, v, bias, x):
        return attend(q, k, v, bias, knn_dictionary(x, 3, regions=regions))

    function = build_and_attend if inside else attend
    last = x if inside else knn_dictionary(x, 3, regions=regions)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")

    def run(function):
        inputs = [t.detach().clone().requires_grad_() for t in (q, k, v, bias)]
        out = function(*inputs, last)
        return [out, *torch.autograd.grad(out.square().sum(), inputs)]

    for got, expected in zip(run(compiled), run(function), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs torch with MKL")
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(with_bias, requires_grad):
    q, k, v, bias, index = draw(dtype=torch.float32)
    dictionary = KNNDictionary.from_index(index, M)
    listed = dictionary.transposed()
    q, k, v, bias = (x.clone().requires_grad_(requires_grad) for x in (q, k, v, bias))
    arguments = (
        *(q, k, v, dictionary.columns(), dictionary.unused()),
        *(listed.offsets, listed.queries, listed.slots, bias if with_bias else None, 0.3),
    )
    torch.library.opcheck(torch.ops.common_kernels.knn_attention_csr_fwd.default, arguments)
    ops = torch.ops.common_kernels
    arguments = (q, k, v, dictionary.index, bias if with_bias else None, 0.3)
    torch.library.opcheck(ops.knn_attention_chunked_fwd.default, arguments)
    if requires_grad:
        whole = knn_attention(q, k, v, dictionary, bias=arguments[4], scale=0.3, backend="reference")
        leaves = [x for x in (q, k, v, arguments[4]) if x is not None]
        expected = torch.autograd.grad(whole.sin().sum(), leaves)
        opaque = ops.knn_attention_chunked_fwd(*arguments)
        for found, wanted in zip(torch.autograd.grad(opaque.sin().sum(), leaves), expected, strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs torch with MKL")
def test_torch_counts_the_operations_of_listed_pairs_only():
    q, k, v = torch.randn(3, 2, 3, 16, 5, requires_grad=True).unbind()
    dictionary = knn_dictionary(torch.randn(2, 16, 4), 7)
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as forward:
        out = knn_attention(q, k, v, dictionary, backend="csr")
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as backward:
        out.sum().backward()
    product = 2 * 2 * 3 * 16 * 7 * 5  # multiply and add, windows, heads, queries, keys, channels
    assert forward.get_total_flops() == 2 * product
    assert backward.get_total_flops() == 4 * product
