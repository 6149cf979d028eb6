# SPDX-License-Identifier: Apache-2.0
"""The text of the grammar, as llguidance reads it byte by byte: the same calls as the parser's."""

import pytest
from llguidance import LLMatcher, LLTokenizer
from vitron.protocol import MODULES, Module, call_grammar, parse
from vitron.protocol.contract import BoxRegion

TOKENIZER = LLTokenizer("byte")
HEAD = "B</module> <instruction>segment: the dog</instruction>"


def matcher(**settings):
    found = LLMatcher(TOKENIZER, call_grammar(**({"signals": ["<[256]>"]} | settings)), log_level=0)
    assert not found.get_error()
    return found


@pytest.fixture(scope="module")
def call():
    return matcher(start="module")


def following(base, text):
    """Return the characters that may come behind a text; ``None`` if the text itself may not come."""
    state = base.deep_copy()
    tokens = list(text.encode())
    if state.try_consume_tokens(tokens) < len(tokens):
        return None
    # forced bytes are those that must come, and the mask then names no other
    mask = state.compute_logit_bias()
    return "".join(chr(byte) for byte in range(128) if mask[byte])


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("", "ABCDEFGRirtv"),
        ("image_", "est"),
        ("A", "<"),
        ("A</mod", "u"),
        ("A</module>", "\n <"),
        ("A</module> <", "i"),
        (f"{HEAD} <", "ir"),
        (f"{HEAD} <region>", "[mprs|"),
        (f"{HEAD} <region>| 7, ", "123456789"),
        (f"{HEAD}<region>[", "0123456789"),
        (f"{HEAD}<region>[0", ","),
        (f"{HEAD}<region>[998", ","),
        (f"{HEAD}<region>[99", ",012345678"),
        (f"{HEAD}<region>[12", ",0123456789"),
        (f"{HEAD}<region>[997, 5, ", "9"),
        (f"{HEAD}<region>[997, 5, 99", "89"),
        (f"{HEAD}<region>[40, 5, 4", "0123456789"),
        (f"{HEAD}<region>[129, 5, 1", "3456789"),
        (f"{HEAD}<region>[40, 998, 41, 9", "9"),
        (f"{HEAD}<region>[40, 5, 41, 6]", " <"),
        (f"{HEAD}<region>mask_", "123456789"),
        (f"{HEAD}<region>region_1 | 12, ", "123456789"),
        (f"{HEAD}<region>mask_1 | 12, 1", "0123456789"),
        (f"{HEAD}<region>mask_1 | 12, 12", "0123456789<"),
        (f"{HEAD}<region>points -[1, 2]", " "),
        (f"{HEAD}<region>points -[1, 2] [3, 4]", " <"),
        (f"{HEAD}<region>polygon [1, 2] [3, 4]", " "),
        (f"{HEAD}<region>scribble [1, 2]", " ;<"),
        (f"{HEAD}<region>mask_1</region>", ""),
    ],
)
def test_inside_a_call_only_what_can_be_read(call, text, characters):
    assert sorted(following(call, text)) == sorted(characters)


@pytest.mark.parametrize(
    "text",
    ["Z", "image_x", "B</module><region>", f"{HEAD}<region>[5, 5, 5, 6]", f"{HEAD}<region>[5, 9, 6, 8]"]
    + [f"{HEAD}<region>{bad}" for bad in ("[01", "[1000", "mask_0", "| 7, 6<", "points -[1, 2]<", "circle")]
    + [f"B</module><instruction>{blank}</" for blank in ("", " ", ":", " : \n", "\u00a0", "\x1c")],
)
def test_what_would_be_an_issue_is_refused(call, text):
    assert following(call, text) is None


@pytest.mark.parametrize("content", ["x", "::", ": x", "segment:", "&", "\u00a0\u65e5", "10:45 > 9"])
def test_an_instruction_says_something(call, content):
    text = f"B</module><instruction>{content}</instruction>"
    assert following(call, text) is not None
    assert parse(f"<module>{text}").issues == ()


def test_an_instruction_before_its_module():
    leading = matcher(start="instruction")
    assert following(leading, "remove: x</instruction>") == "\n <"
    assert following(leading, "remove: x</instruction> <instruction>y</instruction><module>C</") == "m"
    assert following(leading, "remove: x</instruction><region>") is None
    # the parser takes a longer one for text
    assert following(leading, "x" * 500 + "</instruction>") is None


def test_signals_come_in_order_behind_a_call():
    signals = matcher(start="module", signals=["<[256]>"])
    signals.consume_tokens(list(f"{HEAD}<region>mask_1</region>".encode()))
    assert signals.compute_ff_tokens() == [256]


def test_modules_are_those_of_the_registry():
    name = Module(
        name="count", letter="N", summary="count", verbs={"count": "count"}, inputs=(), output="masks"
    )
    more = matcher(start="module", modules=MODULES.with_modules(name))
    assert following(more, "") == "ABCDEFGNRcirtv"


def test_spaces_where_tokenizers_add_them():
    spaced = matcher(start="module", spaced=True)
    text = " image _ editing < / module > < instruction > remove : it < / instruction >"
    region = " < region > [ 1, 2, 3, 4 ] | 1, 2 < / region >"
    assert following(spaced, text + region) is not None
    assert following(matcher(start="module"), text) is None
    (found,) = parse(f"<module>{text}{region}").invocations
    assert found.region == BoxRegion(x0=1 / 999, y0=2 / 999, x1=3 / 999, y1=4 / 999)
    assert found.frames == (1, 2)


@pytest.mark.parametrize("signals", [(), ["<[256]>"]])
def test_a_server_gets_the_grammar_of_whole_messages(signals):
    message = matcher(signals=signals)
    free = following(message, "a < b <mod")
    assert len(free) == 128
    for opening in ("hello <module>", "< MODULE >", "x <Module>"):
        assert following(message, opening) == "ABCDEFGRirtv"
    assert following(message, "ok <module>Z") is None
    behind = following(message, f"ok <module>{HEAD}")
    if signals:
        assert behind == "\n <"
    else:
        assert following(message, f"<module>{HEAD} and <module>") == "ABCDEFGRirtv"
