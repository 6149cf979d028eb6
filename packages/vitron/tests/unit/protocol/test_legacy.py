# SPDX-License-Identifier: Apache-2.0
"""The losses of the published parser as they are described.

No output of that parser is recorded here: the strings are our own, and so is the reading of the description.
"""

import re

import pytest
from vitron.protocol import parse, parse_legacy

B = "<module>B</module>"


@pytest.mark.parametrize(
    ("reply", "module", "instruction", "runs"),
    [
        (f"{B} <instruction>segment: the dog</instruction>", "B", ["the dog"], True),
        (f"{B}<instruction>segment: the clock at 10:45</instruction>", "B", ["45"], True),
        (
            "<module>A</module><instruction>draw: a</instruction><module>G</module>"
            "<instruction>move: b</instruction>",
            "A",
            ["a", "b"],
            True,
        ),
        (f"{B}<instruction>segment: a\nb</instruction>", "B", [], False),
        ("<Module>B</Module><instruction>a</instruction>", None, ["a"], False),
        ("<module> B </module><instruction>a</instruction>", " B ", ["a"], False),
        (
            "<module>image_segmentation</module><instruction>a</instruction>",
            "image_segmentation",
            ["a"],
            False,
        ),
        (f"{B}<instruction>segment: a", "B", [], False),
        ("<module>F</module><instruction>background: snow</instruction>", "F", ["snow"], False),
        (
            "<module>F</module><instruction>foreground: ice</instruction>"
            "<instruction>background: snow</instruction>",
            "F",
            ["ice", "snow"],
            True,
        ),
        ("<module>ABC</module><instruction>a</instruction>", "ABC", ["a"], False),
    ],
)
def test_calls(reply, module, instruction, runs):
    found = parse_legacy(reply)
    assert (found.module, list(found.instruction), found.runs) == (module, instruction, runs)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (f"I mark it. {B} <instruction>a</instruction>", "I mark it.  "),
        ("a < b, c > d and e < f, g > h", "a  h"),
        ("Bye.</s>", "Bye.</s>"),
        ("<instruction>a: <region>[5, 6]</region></instruction>", "[5, 6]"),
        ("a <b\nc> d", "a <b\nc> d"),
    ],
    ids=["tags", "comparisons are eaten", "end mark stays", "nested region leaks", "per line"],
)
def test_what_the_user_sees(reply, text):
    assert parse_legacy(reply).text == text
    assert re.sub("<.*?>.*?<.*?>", "", reply) == text


def test_a_region_is_seen_and_lost():
    reply = f"{B}<instruction>a</instruction><region>[1, 2, 3, 4]</region>"
    assert parse_legacy(reply).region == "[1, 2, 3, 4]"
    (call,) = parse(reply, legacy=True).invocations
    assert (call.module, call.region) == ("image_segmentation", None)


def test_nothing_runs_without_a_known_letter():
    assert parse("<module>R</module><instruction>denoise: it</instruction>", legacy=True).invocations == ()
