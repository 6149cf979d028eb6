# SPDX-License-Identifier: Apache-2.0
import pytest
from vitron.protocol import Grammar, parse
from vitron.protocol.contract import BoxRegion

HEAD = "<module>B</module> <instruction>segment: the dog</instruction>"


def after(text):
    grammar = Grammar()
    grammar.advance(text)
    return grammar


def allowed(text):
    return "".join(sorted(after(text).allowed_next().only))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a < b <mod",
        "</module></instruction><region>",
        "</s>&lt;module>",
        HEAD,
        f"{HEAD} \n",
        f"{HEAD} <reg",
        f"{HEAD} and <region>",
        f"{HEAD}<region>mask_1</region>",
        f"{HEAD}<region>mask_1</region> <region>",
        "<instruction>a</instruction> <module>C</module>",
        f"{HEAD}</region>",
    ],
)
def test_outside_a_call_everything_is_allowed(text):
    grammar = after(text)
    assert grammar.allowed_next().everything
    assert "\U0001f600" in grammar.allowed_next()
    assert grammar.can_end()
    assert not grammar.in_call


@pytest.mark.parametrize(
    ("text", "next_characters"),
    [
        ("<module>", "ABCDEFGRirtv"),
        ("< MODULE >", "ABCDEFGRirtv"),
        ("<module>image_", "est"),
        ("<module>A", "<"),
        ("<module>A</mod", "u"),
        ("<module>A</module>", " <"),
        ("<module>A</module> <", "i"),
        (f"{HEAD} <region>", "[m|"),
        (f"{HEAD} <region>| 7, ", "123456789"),
        (f"{HEAD}<REGION>[", "0123456789"),
        (f"{HEAD}<region>[0", ","),
        (f"{HEAD}<region>[998", ","),
        (f"{HEAD}<region>[99", ",012345678"),
        (f"{HEAD}<region>[12", ",0123456789"),
        (f"{HEAD}<region>[997, 5, ", "9"),
        (f"{HEAD}<region>[997, 5, 99", "89"),
        (f"{HEAD}<region>[40, 5, 4", "0123456789"),
        (f"{HEAD}<region>[40, 5, 41, 6]", " <"),
        (f"{HEAD}<region>mask_", "123456789"),
        (f"{HEAD}<region>mask_1 | 12, ", "123456789"),
        (f"{HEAD}<region>mask_1 | 12, 1", "0123456789"),
        (f"{HEAD}<region>mask_1 | 12, 12", "0123456789<"),
    ],
)
def test_inside_a_call_only_what_can_be_read(text, next_characters):
    assert allowed(text) == next_characters
    assert not after(text).can_end()


def test_an_instruction_must_say_something_before_it_ends():
    start = "<module>B</module><instruction>"
    for silent in ("", " ", ":", " : \n"):
        assert "<" not in after(start + silent).allowed_next()
        assert "x" in after(start + silent).allowed_next()
    for telling in ("x", "::", ": x", "segment:", "&"):
        assert "<" in after(start + telling).allowed_next()
        assert allowed(start + telling + "<") == "/"
        assert parse(f"{start}{telling}</instruction>").issues == ()


def test_what_is_refused_leaves_what_came_before():
    grammar = Grammar()
    with pytest.raises(ValueError, match="'Z' may not come behind '<module>'"):
        grammar.advance("<module>Z")
    assert grammar.accepts("B</module>")
    assert not grammar.accepts("Bicycle")
    grammar.advance("B")
    assert grammar.allowed_next().only == {"<"}


def test_a_copy_goes_its_own_way():
    one = after("Look: <mod")
    two = one.copy()
    two.advance("ule>")
    assert (one.in_call, two.in_call) == (False, True)
    one.advance("el>")
    assert one.allowed_next().everything


def test_a_whole_call_is_what_it_says():
    text = f"{HEAD}\n<region>[40, 5, 41, 6] | 3, 3</region> ok"
    grammar = after(text)
    assert grammar.can_end()
    (call,) = parse(text).invocations
    assert call.region == BoxRegion(x0=40 / 999, y0=5 / 999, x1=41 / 999, y1=6 / 999)
    assert call.frames == (3, 3)
