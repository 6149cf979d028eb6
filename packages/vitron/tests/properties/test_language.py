# SPDX-License-Identifier: Apache-2.0
"""Laws of the parser, over as many strings and turns as the numerical checks ask for."""

import random
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vitron.protocol import (
    MODULES,
    StreamParser,
    escape,
    from_message,
    parse,
    parse_legacy,
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
ODD = [*BITS, *MARKS, *SIGNALS[:2], "<mod", "ule>", "\ud800", "\x00", "<|im"]
TAGS = re.compile(
    r"<\s{0,8}/?\s{0,8}(module|instruction|region)\s{0,8}>|" + "|".join(map(re.escape, (*MARKS, *SIGNALS))),
    re.ASCII | re.IGNORECASE,
)
VALUES = {
    "integer": lambda rng: rng.randint(-999, 999),
    "name": lambda rng: "vid_4",
    "size": lambda rng: "8x9",
}


# characters of one to four bytes, without surrogates
RANGES = [
    lambda rng: rng.randrange(0x20, 0x7F),
    lambda rng: rng.randrange(0xA0, 0x800),
    lambda rng: rng.randrange(0x3000, 0xD000),
    lambda rng: rng.randrange(0x10000, 0x10FFFF),
]


def words(rng):
    count = rng.randrange(9)
    return "".join(
        rng.choice(BITS) if rng.random() < 0.7 else chr(rng.choice(RANGES)(rng)) for _ in range(count)
    )


def box(rng):
    x, y, wide, high = (rng.randint(0, 49), rng.randint(0, 49), rng.randint(1, 50), rng.randint(1, 50))
    return snap(box_from_pixels(x, y, x + wide, y + high, width=100, height=100))


def call(rng):
    module = rng.choice(list(MODULES))
    pairs = [(rng.choice(["", *module.verbs]), words(rng)) for _ in range(rng.randint(1, 3))]
    frames = rng.choice([None, (rng.randint(0, 5), rng.randint(5, 9))])
    instruction = tuple(Instruction(verb=v, text=t) for v, t in pairs if v or t.strip())
    args = {name: VALUES[arg.kind](rng) for name, arg in module.table.items() if rng.random() < 0.5}
    region = rng.choice([lambda _: None, lambda _: ReferenceRegion(name="mask_3"), box])(rng)
    if rng.random() < 0.2 and (args or region or frames):
        instruction = ()  # a call needs one of the four
    return Invocation(
        module=module.name,
        instruction=instruction or (() if args or region or frames else (Instruction(text="x"),)),
        args=args,
        region=region,
        frames=frames,
    )


def turn_of(rng):
    invocations = tuple(call(rng) for _ in range(rng.randrange(5)))
    signals = tuple(
        Signal(kind=rng.choice(["specific", "shared"]), index=rng.randrange(16), invocation=place)
        for place in [None, *range(len(invocations))]
        for _ in range(rng.randrange(3))
    )
    return Turn(text=words(rng), invocations=invocations, signals=signals)


TURNS = st.randoms(use_true_random=False).map(turn_of)
PLAIN = st.text().filter(lambda text: not any(0xD800 <= ord(char) < 0xE000 for char in text)) | st.randoms(
    use_true_random=False
).map(words)


def meaning(turn):
    """A turn without the places in its reply."""
    placeless = tuple(call.model_copy(update={"source": None}) for call in turn.invocations)
    return turn.model_copy(update={"invocations": placeless, "spans": ()})


def test_parsing_undoes_rendering():
    rng = random.Random(0)
    for _ in range(10_000):
        turn = turn_of(rng)
        reply = render(turn)
        found = parse(reply)
        assert meaning(found) == turn
        assert "".join(span.raw for span in found.spans) == reply
        assert render(found) == reply


@settings(max_examples=60, deadline=None)
@given(TURNS)
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
    for _ in range(count):
        yield "".join(rng.choice(ODD) for _ in range(rng.randrange(length)))


def mutated(count, seed):
    """Written turns with characters lost, doubled, exchanged, cut off or put in."""
    rng = random.Random(seed)
    while count > 0:
        chars = list(render(turn_of(rng)))
        for _ in range(min(count, 20)):
            count -= 1
            text = list(chars)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(text) + 1)
                text[at : at + rng.randrange(3)] = rng.choice(
                    [[], text[at : at + 1] * 2, text[at : at + 9][::-1], list(rng.choice(ODD))]
                )
            yield "".join(text[: rng.choice([None, rng.randrange(len(text) + 1)])])


# ten tests of 10,000 strings each, so that none runs for long
@pytest.mark.parametrize("make", [strings, mutated], ids=["random", "mutated"])
@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_is_read_without_exception_or_loss(make, seed):
    for text in make(10_000, seed):
        turn = parse(text)
        raw = "".join(span.raw for span in turn.spans)
        assert raw == text.replace("\ud800", "\ufffd")
        assert [span.start for span in turn.spans] == [0, *(span.end for span in turn.spans)][:-1] or not text
        pieces = [span.raw for span in turn.spans if span.kind == "text"]
        if TAGS.search("".join(pieces)):  # text on both sides of what is removed makes a tag
            assert not TAGS.search(turn.text) or "&" in text
            assert "\u200b" in turn.text
        else:
            assert turn.text == "".join(map(unescape, pieces))
        assert all(raw[slice(*found.source)].startswith("<") for found in turn.invocations)
        assert not any(TAGS.search(span.raw) for span in turn.spans if span.kind == "text")
        parse_legacy(text)


def test_character_by_character_is_the_same_as_at_once():
    rng = random.Random(5)
    for text in strings(2000, seed=2):
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
    "instructions": "<instruction>",
    "leading instructions": "<instruction>a</instruction> ",
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
