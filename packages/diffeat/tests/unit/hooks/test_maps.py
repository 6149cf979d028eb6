# SPDX-License-Identifier: Apache-2.0
"""Attention maps computed again in chunks."""

import pytest
import torch
from common_kernels.testing import peak_bytes
from diffeat import MapOptions
from diffeat.hooks.maps import AttentionWatch, Scores, attention_map
from torch.nn import functional as F


def projections(queries=12, keys=9, heads=4, head_dim=5, batch=2):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(batch, heads, queries, head_dim, generator=generator)
    k = torch.randn(batch, heads, keys, head_dim, generator=generator)
    return q, k


def explicit(q, k, scale=None, mask=None):
    """The textbook formula in float64, all at once."""
    logits = q.double() @ k.double().transpose(2, 3) * (q.shape[3] ** -0.5 if scale is None else scale)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=3)


def taken(q, k, options=None, rows=slice(0, None), columns=slice(0, None), **scores):
    scores.setdefault("scale", q.shape[3] ** -0.5)
    every_row = range(q.shape[2])[rows]
    every_column = range(k.shape[2])[columns]
    return attention_map(
        Scores(q=q, k=k, **scores),
        slice(every_row.start, every_row.stop),
        slice(every_column.start, every_column.stop),
        options or MapOptions(),
        q.shape[0],
    )


@pytest.mark.parametrize("chunk", [1, 5, 12, 100, None])
def test_chunks_equal_the_formula_in_float64(chunk):
    q, k = projections()
    torch.testing.assert_close(
        taken(q, k, MapOptions(chunk=chunk)).double(), explicit(q, k), rtol=1e-5, atol=1e-7
    )
    exact = taken(q.double(), k.double(), MapOptions(chunk=chunk))
    torch.testing.assert_close(exact, explicit(q, k), rtol=1e-13, atol=1e-14)


def test_masks_of_both_kinds_and_causality():
    q, k = projections()
    generator = torch.Generator().manual_seed(1)
    allowed = torch.rand(2, 1, 12, 9, generator=generator) > 0.4
    allowed[..., 0] = True
    per_key = torch.randn(2, 1, 1, 9, generator=generator)
    per_pair = torch.randn(12, 9, generator=generator)
    options = MapOptions(chunk=5)
    for mask in (allowed, per_key, per_pair):
        got = taken(q, k, options, mask=mask)
        torch.testing.assert_close(got.double(), explicit(q, k, mask=mask), rtol=1e-5, atol=1e-7)
    square = k[:, :, :9]
    causal = taken(q[:, :, :9], square, options, is_causal=True)
    assert torch.equal(causal, causal.tril())
    torch.testing.assert_close(causal.sum(3), torch.ones(2, 4, 9))


def test_shared_keys_are_repeated():
    q, k = projections()
    got = taken(q, k[:, :2])
    torch.testing.assert_close(got.double(), explicit(q, k[:, [0, 0, 1, 1]]), rtol=1e-5, atol=1e-7)


def test_reductions_equal_those_of_the_whole_map():
    q, k = projections()
    whole = taken(q, k)
    for chunk in (4, None):
        mean = taken(q, k, MapOptions(heads="mean", chunk=chunk))
        torch.testing.assert_close(mean, whole.mean(1, keepdim=True))
        some = taken(q, k, MapOptions(heads=(3, 1), tokens=(0, -1), chunk=chunk))
        torch.testing.assert_close(some, whole[:, [3, 1]][..., [0, -1]])
        part = taken(q, k, MapOptions(chunk=chunk), rows=slice(2, 9), columns=slice(4, 9))
        torch.testing.assert_close(part, whole[:, :, 2:9, 4:])


def test_half_precision_is_computed_in_fp32():
    q, k = (x.bfloat16() for x in projections())
    got = taken(q, k)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), explicit(q, k), rtol=1e-5, atol=1e-7)


def test_the_mean_of_heads_never_holds_the_whole_map():
    q, k = projections(queries=1024, keys=1024, heads=10, head_dim=8, batch=1)
    whole, one_head = 10 * 1024 * 1024 * 4, 1024 * 1024 * 4
    peak = peak_bytes(lambda: taken(q, k, MapOptions(heads="mean", chunk=32)))
    assert one_head <= peak < 2 * one_head < whole / 4


def test_a_gradient_reaches_the_queries():
    q, k = projections()
    q.requires_grad_()
    taken(q, k, MapOptions(chunk=5))[..., 0].sum().backward()
    assert q.grad.abs().sum() > 0


def test_the_watch_sees_attention_and_changes_nothing():
    q, k = projections(keys=12)
    plain = F.scaled_dot_product_attention(q, k, k, scale=0.3)
    with AttentionWatch() as watch:
        watched = F.scaled_dot_product_attention(q, k, k, scale=0.3)
    assert torch.equal(plain, watched)
    (scores,) = watch.found()
    assert scores.q is q
    assert scores.scale == 0.3
    assert scores.size == (12, 12)


def test_the_watch_sees_a_softmax_where_there_is_no_fused_kernel():
    q, k = projections(keys=12)
    with AttentionWatch() as watch:
        halves = [(x[:, :2] @ k[:, :2].transpose(2, 3) * 5**-0.5).softmax(-1).flatten(0, 1) for x in (q, q)]
    (scores,) = watch.found()
    assert scores.size == (12, 12)
    got = attention_map(scores, slice(2, 12), slice(0, 3), MapOptions(heads="mean"), 4)
    assert got.shape == (4, 1, 10, 3)
    assert torch.equal(torch.cat(halves), torch.cat(scores.probs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "max"}, "heads must be 'all', 'mean' or a tuple of indices, got 'max'"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MapOptions(**options)


def test_heads_and_tokens_that_are_not_there():
    q, k = projections()
    with pytest.raises(ValueError, match=r"heads of a map must lie below the 4 .* got \(4,\)"):
        taken(q, k, MapOptions(heads=(4,)))
    with pytest.raises(ValueError, match=r"tokens of a map must lie below the 9 .* got \(0, 9\)"):
        taken(q, k, MapOptions(tokens=(0, 9)))
    with pytest.raises(ValueError, match="at least one query"):
        taken(q[:, :, :0], k)
