# SPDX-License-Identifier: Apache-2.0
"""Whatever the grammar allows is parsed without an issue, and what the writer writes is allowed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from vitron.protocol import call_grammar, parse
from vitron.protocol.contract import (
    BoxRegion,
    Instruction,
    Invocation,
    PointsRegion,
    PolygonRegion,
    ReferenceRegion,
    ScribbleRegion,
)
from vitron.protocol.render import render_invocation

TOKENIZER = LLTokenizer("byte")
END = 256


def matcher(start, spaced):
    found = LLMatcher(
        TOKENIZER, call_grammar(signals=[f"<[{END}]>"], start=start, spaced=spaced), log_level=0
    )
    assert not found.get_error()
    return found


def walk(state, rng):
    """Return the bytes that a model without sense would write, closing tags where it may."""
    written = bytearray()
    while True:
        mask = state.compute_logit_bias()
        allowed = [byte for byte in range(END + 1) if mask[byte]]
        if END in allowed and (allowed == [END] or rng.random() < 0.5):
            return bytes(written)
        closes = ord("<") in allowed and rng.random() < 0.3
        # half of the bytes begin a character of several bytes
        plain = [byte for byte in allowed if byte < 128]
        byte = ord("<") if closes else rng.choice(plain if plain and rng.random() < 0.7 else allowed)
        if byte == END:
            continue
        written.append(byte)
        assert state.consume_token(byte)


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("start", ["module", "instruction"])
def test_every_call_under_the_grammar_is_parsed_without_an_issue(start, spaced):
    base, rng, kinds = matcher(start, spaced), random.Random(3), set()
    for _ in range(100):
        text = f"<{start}>{walk(base.deep_copy(), rng).decode()}"
        turn = parse(text)
        assert turn.issues == (), text
        (call,) = turn.invocations
        kinds.add(None if call.region is None else call.region.kind)
    assert kinds >= {None, "box", "points", "polygon", "scribble", "ref"}


def test_corners_are_in_order_whatever_is_sampled():
    base, rng = matcher("module", False), random.Random(5)
    base.consume_tokens(list(b"B</module><instruction>x</instruction><region>["))
    for _ in range(300):
        text = (
            f"<module>B</module><instruction>x</instruction><region>[{walk(base.deep_copy(), rng).decode()}"
        )
        (call,) = parse(text).invocations
        assert call.region.x0 < call.region.x1
        assert call.region.y0 < call.region.y1


step = st.integers(0, 999).map(lambda number: number / 999)
point = st.tuples(step, step)
boxes = st.tuples(step, step, step, step).filter(lambda box: box[0] < box[2] and box[1] < box[3])
regions = st.one_of(
    boxes.map(lambda box: BoxRegion(x0=box[0], y0=box[1], x1=box[2], y1=box[3])),
    st.lists(point, min_size=1, max_size=9).map(
        lambda points: PointsRegion(points=points, positive=[n % 3 == 0 for n in range(len(points))])
    ),
    st.lists(point, min_size=3, max_size=9).map(lambda points: PolygonRegion(points=points)),
    st.lists(st.lists(point, min_size=1, max_size=5), min_size=1, max_size=4).map(
        lambda strokes: ScribbleRegion(strokes=strokes)
    ),
    st.sampled_from(["mask_1", "region_27"]).map(lambda name: ReferenceRegion(name=name)),
    st.none(),
)
frames = st.none() | st.tuples(st.integers(0, 99_999), st.integers(0, 99_999)).map(
    lambda pair: (min(pair), max(pair))
)
words = st.text(min_size=1, max_size=20).map(str.strip).filter(lambda text: text.strip(": \x1c\x1d\x1e\x1f"))
WRITTEN = {}


@settings(max_examples=300)
@given(words, regions, frames)
def test_what_the_writer_writes_is_allowed(text, region, span):
    call = Invocation(
        module="video_segmentation",
        instruction=(Instruction(verb="track", text=text), Instruction(text=text)),
        region=region,
        frames=span,
    )
    written = render_invocation(call).encode("utf-8", "replace")
    if "base" not in WRITTEN:
        WRITTEN["base"] = matcher("module", False)
    state = WRITTEN["base"].deep_copy()
    tokens = list(written.removeprefix(b"<module>"))
    assert state.try_consume_tokens(tokens) == len(tokens), written
    mask = state.compute_logit_bias()
    assert mask[END]
