# SPDX-License-Identifier: Apache-2.0
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vitron.protocol import (
    MODULES,
    Grammar,
    StreamParser,
    escape,
    from_message,
    parse,
    render,
    to_tool_calls,
    unescape,
)
from vitron.protocol.contract import Instruction, Invocation, ReferenceRegion, Signal, Turn
from vitron.protocol.lexer import MARKS, SIGNALS
from vitron.protocol.regions import box_from_pixels, snap

# what is likely to be taken for something else
BITS = [
    *("<module>", "</module>", "<instruction>", "</instruction>", "<region>", "</region>", "< / Module >"),
    *("&lt;", "&amp;", "&", "<", ">", ":", "segment:", "seed: 3", "input: img_1", "\n", " ", "[1, 2, 3, 4]"),
    *("B", "image_editing", "mask_1", "é", "\U0001f600", "\u2028", "\x1c", "İ", "</s>", "<sig_p0>", "| 1, 2"),
]
WORDS = st.lists(st.sampled_from(BITS) | st.text(max_size=4), max_size=8).map("".join)
PLAIN = WORDS.filter(lambda text: not any(0xD800 <= ord(char) < 0xE000 for char in text))
REGIONS = (
    st.none()
    | st.just(ReferenceRegion(name="mask_3"))
    | st.builds(
        lambda x, y, w, h: snap(box_from_pixels(x, y, x + w, y + h, width=100, height=100)),
        *(st.integers(0, 49), st.integers(0, 49), st.integers(1, 50), st.integers(1, 50)),
    )
)


KINDS = st.sampled_from(["specific", "shared"])
SHOWN = ("text", "stray")


@st.composite
def calls(draw):
    module = draw(st.sampled_from(list(MODULES)))
    verbs = st.sampled_from(["", *module.verbs])
    pairs = draw(st.lists(st.tuples(verbs, PLAIN), min_size=1, max_size=3))
    said = tuple(Instruction(verb=v, text=t) for v, t in pairs if v or t.strip()) or (Instruction(text="x"),)
    values = {"integer": st.integers(-999, 999), "name": st.just("vid_4"), "size": st.just("8x9")}
    args = {name: draw(values[arg.kind]) for name, arg in module.table.items() if draw(st.booleans())}
    frames = draw(st.none() | st.tuples(st.integers(0, 5), st.integers(5, 9)))
    return Invocation(module=module.name, instruction=said, args=args, region=draw(REGIONS), frames=frames)


@st.composite
def turns(draw):
    invocations = tuple(draw(st.lists(calls(), max_size=4)))
    signals = [
        Signal(
            kind=draw(st.sampled_from(["specific", "shared"])),
            index=draw(st.integers(0, 15)),
            invocation=place,
        )
        for place in [None, *range(len(invocations))]
        for _ in range(draw(st.integers(0, 2)))
    ]
    return Turn(text=draw(PLAIN), invocations=invocations, signals=tuple(signals))


def meaning(turn):
    """A turn without the places in its reply."""
    placeless = tuple(call.model_copy(update={"source": None}) for call in turn.invocations)
    return turn.model_copy(update={"invocations": placeless, "spans": ()})


@settings(max_examples=120, deadline=None)
@given(turns())
def test_parsing_undoes_rendering(turn):
    reply = render(turn)
    found = parse(reply)
    assert meaning(found) == turn
    assert "".join(span.raw for span in found.spans) == reply
    assert render(found) == reply


@settings(max_examples=60, deadline=None)
@given(turns())
def test_function_calls_carry_the_same(turn):
    found = from_message({"content": escape(turn.text), "tool_calls": to_tool_calls(turn)})
    assert (found.text, found.invocations) == (turn.text, turn.invocations)


@settings(deadline=None)
@given(PLAIN)
def test_escaped_text_is_text_and_comes_back(text):
    found = parse(escape(text))
    assert found.text == text
    assert (found.invocations, found.signals, found.issues) == ((), (), ())
    assert unescape(escape(text)) == text
    assert "<" not in escape(text)


def strings(count, seed, length=14):
    rng = random.Random(seed)
    odd = [*BITS, *MARKS, *SIGNALS[:2], "<mod", "ule>", "\ud800", "\x00", "<|im"]
    for _ in range(count):
        yield "".join(rng.choice(odd) for _ in range(rng.randrange(length)))


def test_whatever_comes_is_read_without_exception_or_loss():
    for text in strings(3000, seed=1):
        turn = parse(text)
        raw = "".join(span.raw for span in turn.spans)
        assert raw == text.replace("\ud800", "\ufffd")
        assert [span.start for span in turn.spans] == [0, *(span.end for span in turn.spans)][:-1] or not text
        shown = "".join(
            s.raw if s.kind == "stray" else unescape(s.raw) for s in turn.spans if s.kind in SHOWN
        )
        assert turn.text == shown
        assert all(raw[slice(*c.source)].startswith("<") for c in turn.invocations)
        parse(text, legacy=True)


def test_character_by_character_is_the_same_as_at_once():
    rng = random.Random(5)
    for text in strings(600, seed=2):
        one, some = StreamParser(), StreamParser()
        events = [event for char in text for event in one.feed(char)]
        place = 0
        while place < len(text):
            step = rng.randrange(1, 9)
            some.feed(text[place : place + step])
            place += step
        whole = parse(text)
        assert one.close() == some.close() == whole
        events += one.drain()
        assert "".join(event for event in events if isinstance(event, str)) == whole.text
        assert tuple(event for event in events if isinstance(event, Invocation)) == whole.invocations


HARD = {
    "brackets": "<",
    "spaced brackets": "< ",
    "modules": "<module>",
    "calls": "<module>B</module><instruction>a</instruction>",
    "strays": "</instruction>",
    "marks": "</s>",
    "ampersands": "&l",
    "half tags": "<mod",
    "plain": "The quick brown fox. ",
    "nested": "<module>B</module><instruction><region>",
}


def lines_run(text, piece):
    """Lines of Python that the parser executes."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    parser, before = StreamParser(), sys.gettrace()
    sys.settrace(trace)
    try:
        for place in range(0, len(text), piece):
            parser.feed(text[place : place + piece])
        parser.close()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("piece", [1 << 20, 7], ids=["at once", "in pieces"])
@pytest.mark.parametrize("unit", HARD.values(), ids=HARD.keys())
def test_work_grows_with_the_length_and_no_faster(unit, piece):
    sizes = [2048, 4096]
    small, large = (lines_run((unit * size)[:size], piece) for size in sizes)
    assert large <= 2.1 * small + 200
    assert small <= 120 * sizes[0] + 1000


@pytest.mark.parametrize("unit", HARD.values(), ids=HARD.keys())
def test_no_more_than_a_tag_is_held_back(unit):
    parser, shown = StreamParser(), 0
    for place, char in enumerate((unit * 400)[:400]):
        shown += sum(len(event) for event in parser.feed(char) if isinstance(event, str))
        assert len(parser._lexer.held) <= 40
        if "<" not in unit:
            assert place + 1 - shown <= 4
    assert parser.close() is not None


def test_64_kilobytes_are_read():
    assert len(parse("<" * 65_536).text) == 65_536
    assert len(parse("<module>B</module>" * 3640).issues) == 3640


def walk(rng, steps):
    """A reply as an untrained model under the grammar would write it."""
    grammar, out = Grammar(), []
    while steps > 0 or not grammar.can_end():
        steps -= 1
        allowed = grammar.allowed_next()
        if allowed.only is not None:
            piece = rng.choice(sorted(allowed.only))
        elif not grammar.in_call:
            piece = rng.choice(BITS)
        elif steps < 0 and allowed.everything:
            piece = "<"
        else:
            piece = rng.choice([*"abx :\n&é<", "&lt;", "seed: 3", "segment:"])
        if grammar.accepts(piece):
            grammar.advance(piece)
            out.append(piece)
    return "".join(out)


def test_every_reply_under_the_grammar_is_read_without_an_issue():
    rng, found = random.Random(3), 0
    for _ in range(150):
        reply = walk(rng, 60)
        turn = parse(reply)
        assert turn.issues == (), reply
        found += len(turn.invocations)
    assert found > 100


def test_the_grammar_leaves_free_text_alone():
    rng = random.Random(4)
    for _ in range(200):
        grammar, parser = Grammar(), StreamParser()
        for _ in range(25):
            piece = rng.choice(BITS)
            if not grammar.accepts(piece):
                continue
            grammar.advance(piece)
            parser.feed(piece)
            if not parser.in_call:
                assert grammar.allowed_next().everything


@settings(max_examples=40, deadline=None)
@given(turns())
def test_what_is_rendered_is_in_the_language(turn):
    assert Grammar().accepts(render(turn))
