# SPDX-License-Identifier: Apache-2.0
import torch
from common_kernels import KNNDictionary, knn_attention, knn_dictionary
from hypothesis import example, given, settings
from hypothesis import strategies as st

DUPLICATE_FIRST = (torch.tensor([[[1, 0, 1]]]), 3, torch.tensor([[[True, True, False]]]))
quick = settings(deadline=None, derandomize=True, max_examples=40)
seeds = st.integers(0, 2**31)
similarities = st.sampled_from(["dot", "cosine", "l2"])
backends = st.sampled_from(["reference", "topk"])
cpu_backends = ["reference", "chunked", "sdpa", "csr"]


def generator(seed):
    return torch.Generator().manual_seed(seed)


@st.composite
def indices(draw: st.DrawFn):
    """Draw lists with padding and duplicates, their number of keys and the pairs they mean."""
    B, N, K = draw(st.integers(1, 3)), draw(st.integers(1, 70)), draw(st.integers(1, 12))
    M = draw(st.integers(1, 100))
    g = generator(draw(seeds))
    index = torch.randint(-1, M, (B, N, K), generator=g)
    index = index.masked_fill(torch.rand(index.shape, generator=g) < draw(st.sampled_from([0, 0.3, 0.9])), -1)
    allowed = torch.zeros(B, N, M, dtype=torch.bool)
    for b in range(B):
        for i in range(N):
            for j in index[b, i].tolist():
                if j >= 0:
                    allowed[b, i, j] = True
    return index, M, allowed


def unpack(words, length):
    """Read the bits of int32 words, lowest first."""
    bits = (words.long().unsqueeze(-1) >> torch.arange(32)) & 1
    bits = bits.flatten(-2)
    assert not bits[..., length:].any()
    return bits[..., :length].bool()


@quick
@example(DUPLICATE_FIRST, list(range(6)))
@given(indices(), st.permutations(range(6)))
def test_every_form_describes_the_same_set(drawn, order):
    index, M, allowed = drawn
    B, N = index.shape[:2]
    dictionary = KNNDictionary.from_index(index, M)
    K = dictionary.k
    assert min(index.shape[2], M) == K
    checks = [
        lambda: torch.equal(dictionary.allowed(), allowed),
        lambda: torch.equal(unpack(dictionary.bits(), M), allowed),
        lambda: torch.equal(unpack(dictionary.bits_transposed(), N), allowed.mT),
        lambda: torch.equal(dictionary.empty_rows(), ~allowed.any(dim=-1)),
        lambda: torch.equal(
            dictionary.float_mask(torch.float32)[:, 0] == 0, allowed | ~allowed.any(dim=-1, keepdim=True)
        ),
        lambda: torch.isin(dictionary.float_mask(torch.float32), torch.tensor([0, float("-inf")])).all(),
    ]
    for i in order:  # whichever form is built first
        assert checks[i]()
    columns, unused = dictionary.columns(), dictionary.unused()
    used = torch.ones(columns.shape, dtype=torch.bool) if unused is None else ~unused
    assert (columns.diff(dim=-1) >= 0).all()
    assert ((columns >= 0) & (columns < M)).all()
    counts = torch.zeros(B, N, M, dtype=torch.long).scatter_add_(-1, columns, used.long())
    assert torch.equal(counts, allowed.long())
    some = allowed.any(dim=-1, keepdim=True)
    assert (allowed.gather(-1, columns) | ~some).all()  # a filled slot repeats a key of its row
    listed = dictionary.transposed()
    assert (listed.offsets[:, 0] == 0).all()
    assert (listed.offsets[:, -1] == N * K).all()
    rebuilt = torch.zeros(B, N, M, dtype=torch.bool)
    for b in range(B):
        assert torch.equal(listed.slots[b].sort().values, torch.arange(N * K))
        assert torch.equal(listed.queries[b], listed.slots[b] // K)
        keys = torch.repeat_interleave(torch.arange(M), listed.offsets[b].diff())
        assert torch.equal(keys, columns[b].flatten()[listed.slots[b]])
        same_key = keys.diff() == 0
        assert (listed.queries[b].diff()[same_key] >= 0).all()
        real = used[b].flatten()[listed.slots[b]]
        rebuilt[b, listed.queries[b][real], keys[real]] = True
    assert torch.equal(rebuilt, allowed)


@quick
@example(DUPLICATE_FIRST)
@given(indices())
def test_flags_are_exact(drawn):
    index, M, allowed = drawn
    dictionary = KNNDictionary.from_index(index, M)
    assert dictionary.is_full == bool((allowed.sum(dim=-1) == dictionary.k).all())
    assert dictionary.has_empty_rows == bool((~allowed.any(dim=-1)).any())


@quick
@given(seeds, similarities, backends, st.booleans(), st.booleans())
def test_sets_grow_with_k(seed, similarity, backend, tied, force_self):
    x = torch.randn(2, 19, 3, generator=generator(seed))
    x = x.round() if tied else x
    previous = torch.zeros(2, 19, 19, dtype=torch.bool)
    for k in (1, 2, 3, 8, 18, 19):
        got = knn_dictionary(x, k, similarity=similarity, force_self=force_self, backend=backend).allowed()
        assert (got.sum(dim=-1) == k).all()
        assert not (previous & ~got).any()
        previous = got


@quick
@given(seeds, st.sampled_from(["dot", "cosine"]), backends)
def test_rotation_changes_nothing(seed, similarity, backend):
    g = generator(seed)
    x = torch.randn(2, 20, 6, generator=g, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q
    a, b = (knn_dictionary(y, 5, similarity=similarity, backend=backend) for y in (x, x @ rotation))
    assert torch.equal(a.allowed(), b.allowed())


@quick
@given(seeds, backends)
def test_scale_of_a_token_does_not_matter_to_cosine(seed, backend):
    g = generator(seed)
    x = torch.randn(2, 20, 6, generator=g, dtype=torch.float64)
    factor = torch.rand(2, 20, 1, generator=g, dtype=torch.float64) * 10 + 0.1
    a, b = (knn_dictionary(y, 5, similarity="cosine", backend=backend) for y in (x, x * factor))
    assert torch.equal(a.allowed(), b.allowed())


@quick
@given(seeds, backends)
def test_shift_does_not_matter_to_l2(seed, backend):
    g = generator(seed)
    x = torch.randn(2, 20, 6, generator=g, dtype=torch.float64)
    shift = torch.randn(6, generator=g, dtype=torch.float64) * 3
    a, b = (knn_dictionary(y, 5, similarity="l2", backend=backend) for y in (x, x + shift))
    assert torch.equal(a.allowed(), b.allowed())


@quick
@given(seeds, similarities, backends)
def test_windows_are_independent(seed, similarity, backend):
    x = torch.randn(3, 20, 4, generator=generator(seed), dtype=torch.float64)
    whole = knn_dictionary(x, 4, similarity=similarity, backend=backend).allowed()
    for b in range(3):
        alone = knn_dictionary(x[b : b + 1], 4, similarity=similarity, backend=backend).allowed()
        assert torch.equal(whole[b : b + 1], alone)


@quick
@given(indices(), seeds)
def test_attention_backends_agree_on_any_list(drawn, seed):
    index, M, allowed = drawn
    g = generator(seed)
    B, N, _ = index.shape
    q = torch.randn(B, 2, N, 3, generator=g, dtype=torch.float64)
    k, v = torch.randn(2, B, 2, M, 3, generator=g, dtype=torch.float64).unbind()
    logits = (q @ k.mT * 3**-0.5).masked_fill(~allowed.unsqueeze(1), -1e300)
    expected = (logits.softmax(dim=-1) * allowed.unsqueeze(1)) @ v
    dictionary = KNNDictionary.from_index(index, M)
    for backend in cpu_backends:
        out = knn_attention(q, k, v, dictionary, backend=backend)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@quick
@given(indices(), seeds)
def test_outputs_stay_within_the_listed_values(drawn, seed):
    index, M, allowed = drawn
    g = generator(seed)
    B, N, _ = index.shape
    q = torch.randn(B, 1, N, 2, generator=g)
    k, v = torch.randn(2, B, 1, M, 2, generator=g).unbind()
    dictionary = KNNDictionary.from_index(index, M)
    pairs = allowed.unsqueeze(1).unsqueeze(-1)  # (B, 1, N, M, 1)
    low = torch.where(pairs, v.unsqueeze(2), float("inf")).amin(dim=3)
    high = torch.where(pairs, v.unsqueeze(2), float("-inf")).amax(dim=3)
    some = allowed.any(dim=-1).unsqueeze(1)
    for backend in cpu_backends:
        out = knn_attention(q, k, v, dictionary, backend=backend)
        assert ((out >= low - 1e-5) & (out <= high + 1e-5))[some].all()
        assert (out[~some] == 0).all()
