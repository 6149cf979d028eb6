# SPDX-License-Identifier: Apache-2.0
"""What only a CUDA device can show of the Triton backends of knn_attention and knn_dictionary."""

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from common_kernels import KNNDictionary, knn_attention, knn_dictionary
from common_kernels.ops.knn_attention.triton import launch
from common_kernels.ops.knn_attention.triton.tiles import candidate_tiles
from common_kernels.testing import clustered_features

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NAMES = ("q", "k", "v", "bias")
SHAPES = {
    "window-256": (4, 6, 256, 32, 64),
    "window-1024": (1, 4, 1024, 32, 128),
    "odd": (3, 2, 333, 30, 50),
    "wide": (2, 2, 300, 128, 77),
    "sparse-4096": (1, 1, 4096, 64, 64),
}


def make_case(shape, dtype, *, bias=True):
    B, heads, N, head_dim, k = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def randn(*size):
        return torch.randn(*size, device="cuda", generator=generator)

    inputs = {name: randn(B, heads, N, head_dim).to(dtype) for name in "qkv"}
    if bias:
        inputs["bias"] = randn(heads, N, N)
    dictionary = knn_dictionary(randn(B, N, 24), k, similarity="cosine", backend="reference")
    return inputs, dictionary, randn(B, heads, N, head_dim).to(dtype)


def run(inputs, dictionary, dout, backend):
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    q, k, v, bias = (leaves.get(name) for name in NAMES)
    out = knn_attention(q, k, v, dictionary, bias=bias, backend=backend)
    grads = torch.autograd.grad(out, tuple(leaves.values()), dout)
    return {"out": out.detach()} | dict(zip(leaves, grads, strict=True))


def exact(inputs, dictionary, dout):
    # the dense path: gathering in float64 would not fit at the larger shapes
    return run({name: x.double() for name, x in inputs.items()}, dictionary, dout.double(), "sdpa")


def error(result, expected):
    return float((result.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_errs_at_most_twice_as_much_as_masked_sdpa(shape, dtype, bias):
    inputs, dictionary, dout = make_case(shape, dtype, bias=bias)
    expected = exact(inputs, dictionary, dout)
    ours = run(inputs, dictionary, dout, "triton")
    sdpa = run(inputs, dictionary, dout, "sdpa")
    bound = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    # where SDPA happens to be exact to the last bit, half a unit in the last place is still allowed
    rounding = torch.finfo(dtype).eps / 2
    for name in expected:
        mine, peer = error(ours[name], expected[name]), error(sdpa[name], expected[name])
        assert mine <= bound, f"{name}: {mine:.1e} above {bound:.1e}"
        assert mine <= 2 * peer + rounding, f"{name}: {mine:.1e} against {peer:.1e} of SDPA"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_twenty_repeats_agree_bit_for_bit(dtype):
    inputs, dictionary, dout = make_case(SHAPES["window-256"], dtype)
    first = run(inputs, dictionary, dout, "triton")
    for _ in range(20):
        again = run(inputs, dictionary, dout, "triton")
        assert all(torch.equal(again[name], first[name]) for name in first)


def test_gradients_of_a_dictionary_shared_by_layers_add_up():
    inputs, dictionary, dout = make_case(SHAPES["odd"], torch.float32)
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    q, k, v, bias = leaves.values()
    out = sum(knn_attention(q, k, v, dictionary, bias=bias, backend="triton") for _ in range(6))
    grads = torch.autograd.grad(out, tuple(leaves.values()), dout)
    single = run(inputs, dictionary, dout, "triton")
    for name, grad in zip(leaves, grads, strict=True):
        torch.testing.assert_close(grad, 6 * single[name])


def test_more_than_two_to_the_31_elements():
    B, heads, N, head_dim = 8448, 8, 512, 64
    if torch.cuda.get_device_properties(0).total_memory < 40 * 2**30:
        pytest.skip("needs 40 GiB of GPU memory")
    window = torch.randn(1, heads, N, head_dim, device="cuda", dtype=torch.bfloat16)
    index = torch.randint(N, (1, N, 9), device="cuda")
    last = torch.randn_like(window)
    q = window.repeat(B, 1, 1, 1)
    q[-1:] = last
    assert q.numel() > 2**31
    k = v = window.expand(B, -1, -1, -1)
    one = KNNDictionary.from_index(index, N)
    out = knn_attention(q, k, v, KNNDictionary(one.index.expand(B, -1, -1), N), backend="triton")
    expected = knn_attention(last, window, window, one, backend="triton")
    assert torch.equal(out[-1:], expected)
    assert torch.equal(out[:1], out[-2:-1])


def test_strides_beyond_int32():
    N, head_dim, wide = 40000, 16, 2**16
    if torch.cuda.get_device_properties(0).total_memory < 40 * 2**30:
        pytest.skip("needs 40 GiB of GPU memory")
    # rows stand so far apart that the last starts behind element 2^31
    store = torch.zeros(N, wide, device="cuda", dtype=torch.bfloat16)
    k = store[:, :head_dim].unsqueeze(0).unsqueeze(0)
    k.copy_(torch.randn(1, 1, N, head_dim, device="cuda"))
    assert (N - 1) * k.stride(2) > 2**31
    q = torch.randn(1, 1, 64, head_dim, device="cuda", dtype=torch.bfloat16)
    dictionary = KNNDictionary.from_index(torch.randint(N - 500, N, (1, 64, 8), device="cuda"), N)
    out = knn_attention(q, k, k, dictionary, backend="triton")
    packed = k.contiguous()
    assert torch.equal(out, knn_attention(q, packed, packed, dictionary, backend="triton"))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiles_as_one_graph(dynamic):
    @torch.compile(fullgraph=True, dynamic=dynamic)
    def attend(q, k, v, bias, dictionary):
        return knn_attention(2 * q, k, v, dictionary, bias=bias, backend="triton").sin()

    for shape in ("odd", "window-256"):
        inputs, dictionary, dout = make_case(SHAPES[shape], torch.float32)
        dictionary.bits(), dictionary.bits_transposed()
        leaves = [x.detach().requires_grad_() for x in inputs.values()]
        out = attend(*leaves, dictionary)
        grads = torch.autograd.grad(out, leaves, dout)
        q, k, v, bias = leaves
        eager = knn_attention(2 * q, k, v, dictionary, bias=bias, backend="triton").sin()
        expected = torch.autograd.grad(eager, leaves, dout)
        torch.testing.assert_close(out, eager)
        torch.testing.assert_close(grads, expected)


def test_replays_in_a_cuda_graph():
    inputs, dictionary, _ = make_case(SHAPES["odd"], torch.bfloat16)
    q, k, v, bias = inputs.values()
    dictionary.bits()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        knn_attention(q, k, v, dictionary, bias=bias, backend="triton")  # compiles outside the capture
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = knn_attention(q, k, v, dictionary, bias=bias, backend="triton")
    q.copy_(torch.randn_like(q))
    out.fill_(float("nan"))
    graph.replay()
    assert torch.equal(out, knn_attention(q, k, v, dictionary, bias=bias, backend="triton"))


def test_auto_takes_the_kernels():
    inputs, dictionary, _ = make_case(SHAPES["odd"], torch.float32)
    q, k, v, bias = inputs.values()
    auto = knn_attention(q, k, v, dictionary, bias=bias)
    assert torch.equal(auto, knn_attention(q, k, v, dictionary, bias=bias, backend="triton"))


def test_memory_holds_no_score_matrix():
    B, heads, N, head_dim, k = 1, 4, 8192, 32, 64
    q = torch.randn(B, heads, N, head_dim, device="cuda", dtype=torch.bfloat16)
    dictionary = KNNDictionary.from_index(torch.randint(N, (B, N, k), device="cuda"), N)
    dictionary.bits()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        out = knn_attention(q, q, q, dictionary, backend="triton")
    assert torch.cuda.max_memory_allocated() - before <= out.numel() * out.element_size() + 2**20


@pytest.mark.full_autotune
@pytest.mark.parametrize("kind", ["fwd", "bwd_dq", "bwd_dkv", "bwd_dbias"])
def test_every_candidate_tile_gives_the_right_answer(kind, monkeypatch):
    # a tile of the bias is not part of the estimate by which candidates are pruned
    inputs, dictionary, dout = make_case(SHAPES["odd"], torch.float16, bias=kind == "bwd_dbias")
    expected = exact(inputs, dictionary, dout)
    limit = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    default = launch.default_tile
    for tile in candidate_tiles(kind, 30, torch.float16, limit):

        def choose(which, *rest, tile=tile):
            return tile if which == kind else default(which, *rest)

        monkeypatch.setattr(launch, "default_tile", choose)
        ours = run(inputs, dictionary, dout, "triton")
        assert all(error(ours[name], expected[name]) <= 2e-3 for name in expected), tile


def test_search_finds_a_tile(monkeypatch, tmp_path):
    monkeypatch.setenv("COMMON_KERNELS_AUTOTUNE", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    inputs, dictionary, dout = make_case((2, 2, 200, 32, 20), torch.float16)
    ours = run(inputs, dictionary, dout, "triton")
    expected = exact(inputs, dictionary, dout)
    assert all(error(ours[name], expected[name]) <= 2e-3 for name in expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(("N", "k"), [(256, 64), (1000, 128), (2048, 512), (4096, 64), (5000, 1000)])
def test_dictionary_takes_the_most_similar(N, k, dtype):
    x = torch.randn(2, N, 48, device="cuda", dtype=dtype)
    chosen = knn_dictionary(x, k, similarity="cosine", backend="triton").allowed()
    scores = torch.nn.functional.normalize(x.double(), dim=-1)
    scores = scores @ scores.mT
    assert (chosen.sum(dim=-1) == k).all()
    assert chosen.diagonal(dim1=-2, dim2=-1).all()
    worst_taken = scores.masked_fill(~chosen, 2.0).amin(dim=-1)
    best_left = scores.masked_fill(chosen, -2.0).amax(dim=-1)
    assert (worst_taken >= best_left - 1e-6).all()


def test_long_dictionary_holds_no_similarity_matrix_and_repeats_bit_for_bit():
    B, N, k = 2, 16384, 64
    x = clustered_features(N, 64, B=B).to("cuda", torch.bfloat16)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    first = knn_dictionary(x, k, backend="triton").index
    assert torch.cuda.max_memory_allocated() - before < B * N * N * 4 / 16
    for _ in range(5):
        assert torch.equal(knn_dictionary(x, k, backend="triton").index, first)


def test_long_dictionary_equals_the_reference_where_scores_are_exact():
    # small integers: every similarity is exact in fp32, so ties, of which there are many, are true ties
    x = torch.randint(-2, 3, (1, 4096, 16), device="cuda").bfloat16()
    for similarity in ("dot", "l2"):
        ours = knn_dictionary(x, 64, similarity=similarity, backend="triton").allowed()
        assert torch.equal(ours, knn_dictionary(x, 64, similarity=similarity, backend="reference").allowed())


@pytest.mark.parametrize("N", [512, 4096])
def test_dictionary_replays_in_a_cuda_graph(N):
    x = torch.randn(2, N, 32, device="cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        knn_dictionary(x, 32, backend="triton")  # compiles outside the capture
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        index = knn_dictionary(x, 32, backend="triton").index
    x.copy_(torch.randn_like(x))
    index.fill_(-2)
    graph.replay()
    assert torch.equal(index, knn_dictionary(x, 32, backend="triton").index)
