# SPDX-License-Identifier: Apache-2.0
"""Laws of attention maps for every size, chunk and reduction."""

import torch
from diffeat import ActivationName, MapOptions
from diffeat.hooks.geometry import Geometry
from diffeat.hooks.maps import Scores, attention_map
from diffeat.names.taps import Tap
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = st.integers(1, 17)


@settings(deadline=None)  # the first call warms up
@given(SIZES, SIZES, st.integers(1, 4), SIZES, st.sampled_from(["all", "mean"]), st.booleans())
def test_the_chunk_does_not_matter_and_rows_sum_to_one(queries, keys, heads, chunk, reduction, is_masked):
    generator = torch.Generator().manual_seed(queries * 100 + keys)
    q = torch.randn(2, heads, queries, 3, generator=generator, dtype=torch.float64)
    k = torch.randn(2, heads, keys, 3, generator=generator, dtype=torch.float64)
    mask = torch.randn(2, 1, queries, keys, generator=generator) if is_masked else None
    scores = Scores(q=q, k=k, mask=mask)
    rows, columns = slice(0, queries), slice(0, keys)
    whole = attention_map(scores, rows, columns, MapOptions(heads=reduction, chunk=queries), 2)
    parts = attention_map(scores, rows, columns, MapOptions(heads=reduction, chunk=chunk), 2)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(parts.sum(3), torch.ones_like(parts[..., 0]))


@settings(deadline=None)  # the first call warms up
@given(SIZES, SIZES, st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_image_and_text_share_a_joint_sequence(h, w, text, references, text_first):
    grid = Geometry((h, w), h * w + references)
    length = h * w + references + text
    tap = Tap(name=ActivationName.parse("vit-block0-self-map"), sources=(), text_first=text_first)
    image = set(range(length)[grid.rows(length, tap)])
    words = set(range(length)[grid.text(length, tap)])
    assert len(image) == h * w
    assert len(words) == text
    assert not image & words
