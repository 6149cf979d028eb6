# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels import BackendUnavailableError, KNNDictionary, explain_backends, knn_attention
from common_kernels._dispatch import Implementation, choose, explain
from common_kernels._native import why_no_native


def implementation(name, *, why=None, slow=None):
    return Implementation(name, lambda x: why, lambda x: (name, x), None if slow is None else lambda x: slow)


def test_auto_takes_the_first_that_fits():
    offered = (implementation("a", why="no"), implementation("b"), implementation("c"))
    assert choose("op", "auto", offered, 1).name == "b"


def test_auto_passes_by_what_would_be_slow():
    offered = (implementation("a", slow="slow"), implementation("b"))
    assert choose("op", "auto", offered, 1).name == "b"


def test_auto_falls_back_to_the_first_slow_one():
    offered = (implementation("a", why="no"), implementation("b", slow="s"), implementation("c", slow="s"))
    assert choose("op", "auto", offered, 1).name == "b"


def test_auto_with_nothing_left_tells_every_reason():
    offered = (implementation("a", why="too big"), implementation("b", why="too small"))
    with pytest.raises(BackendUnavailableError, match=r"op runs this call.*too big.*too small"):
        choose("op", "auto", offered, 1)


def test_named_slow_one_runs():
    offered = (implementation("a"), implementation("b", slow="slow"))
    chosen = choose("op", "b", offered, 1)
    assert chosen.run(7) == ("b", 7)


def test_named_one_that_refuses_raises_and_never_falls_back():
    offered = (implementation("a", why="too big"), implementation("b"))
    with pytest.raises(BackendUnavailableError, match=r"backend='a' of op cannot run this call: too big"):
        choose("op", "a", offered, 1)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of 'a', 'b', got 'z'"):
        choose("op", "z", (implementation("a"), implementation("b")), 1)


def test_arguments_reach_every_question():
    seen = []
    offered = (
        Implementation(
            "a",
            lambda x, *, y: seen.append((x, y)),
            lambda x, *, y: None,
            lambda x, *, y: seen.append((y, x)),
        ),
    )
    choose("op", "auto", offered, 1, y=2)
    assert seen == [(1, 2), (2, 1)]


def test_explain_keeps_the_order_and_tells_preference_from_refusal():
    offered = (implementation("a", why="no"), implementation("b", slow="s"), implementation("c"))
    reasons = explain(offered, 1)
    assert list(reasons) == ["a", "b", "c"]
    assert reasons == {"a": "no", "b": "runs, but auto prefers another: s", "c": None}


def attention_arguments(N, k, M=None):
    M = M or N
    g = torch.Generator().manual_seed(0)
    index = torch.rand(1, N, M, generator=g).argsort(dim=-1)[..., :k]
    q = torch.randn(1, 1, N, 4, generator=g)
    key, value = torch.randn(2, 1, 1, M, 4, generator=g).unbind()
    return q, key, value, KNNDictionary.from_index(index, M)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the compiled kernels refuse the latter
@pytest.mark.parametrize(
    ("N", "k", "expected"), [(1024, 32, "csr"), (256, 64, "sdpa"), (512, 64, "csr"), (512, 65, "sdpa")]
)
def test_auto_choice_of_attention_is_the_first_without_a_reason(N, k, expected, dtype):
    q, key, value, dictionary = attention_arguments(N, k)
    arguments = (q.to(dtype), key.to(dtype), value.to(dtype), dictionary)
    reasons = explain_backends("knn_attention", *arguments)
    assert list(reasons) == ["triton", "native", "csr", "sdpa", "chunked", "reference"]
    first = next(name for name, reason in reasons.items() if reason is None)
    if dtype == torch.float32 and why_no_native() is None:
        assert first == "native"
    elif torch.backends.mkl.is_available():
        assert first == expected
    assert torch.equal(knn_attention(*arguments), knn_attention(*arguments, backend=first))


def test_auto_asks_for_shorter_lists_where_a_backward_follows():
    q, k, v, dictionary = attention_arguments(512, 64)
    reasons = explain_backends("knn_attention", q.requires_grad_(), k, v, dictionary)
    assert reasons["csr"] is not None
    assert reasons["sdpa"] is None
    with torch.no_grad():
        assert "1 of 12" not in str(explain_backends("knn_attention", q, k, v, dictionary)["csr"])


@pytest.mark.parametrize(("k", "is_dense_faster"), [(128, False), (129, True)])
@pytest.mark.parametrize("train", [False, True])
def test_auto_takes_longer_lists_where_a_dense_mask_had_to_add_a_bias(k, is_dense_faster, train):
    q, key, v, dictionary = attention_arguments(512, k)
    bias = torch.zeros(1, 512, 512, requires_grad=train)
    reasons = explain_backends("knn_attention", q, key, v, dictionary, bias=bias)
    assert ("1 of 4" in str(reasons["csr"])) == is_dense_faster or "MKL" in str(reasons["csr"])


def test_auto_leaves_dense_masks_for_many_keys():
    q, k = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8193, 4)
    dictionary = KNNDictionary(torch.arange(2000, dtype=torch.int32).expand(1, 4, -1), 8193)
    reasons = explain_backends("knn_attention", q, k, k, dictionary)
    assert "1 of 8" in reasons["csr"] or "MKL" in reasons["csr"]
    assert "8192" in reasons["sdpa"]
    assert reasons["chunked"] is None


def test_keys_of_the_other_operators():
    x = torch.zeros(1, 4, 4)
    assert list(explain_backends("knn_dictionary", x, 2)) == ["triton", "native", "topk", "reference"]
    assert list(explain_backends("fuse_phase", x, x)) == ["triton", "native", "phasor", "reference"]
    reasons = explain_backends("fuse_phase", x, x, mode="reference")
    assert reasons["phasor"] == "reproduces the guarded mode only"
    assert reasons["reference"] is None
    double = explain_backends("knn_dictionary", x.double(), 2)
    assert "float64" in double["triton"]


def test_unknown_operator():
    with pytest.raises(ValueError, match=r"op must be one of fuse_phase, knn_attention, knn_dictionary"):
        explain_backends("conv2d")


def test_explain_checks_its_arguments():
    with pytest.raises(ValueError, match="k must be at least 1"):
        explain_backends("knn_dictionary", torch.zeros(1, 4, 4), 0)
    with pytest.raises(ValueError, match="weight must lie"):
        explain_backends("fuse_phase", torch.zeros(4, 4), torch.zeros(4, 4), weight=2)
