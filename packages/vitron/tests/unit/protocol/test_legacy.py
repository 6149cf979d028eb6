# SPDX-License-Identifier: Apache-2.0
"""The losses of the published parser, against its regular expressions."""

import random
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
        ("a <b\nc> d <e> f", "a  f"),
        ("<a>\n<b>", "<a>\n<b>"),
        ("<> a <> b", "<> a <> b"),
    ],
    ids=[
        "tags",
        "comparisons are eaten",
        "end mark stays",
        "nested region leaks",
        "one tag alone",
        "a tag over two lines",
        "a line end between tags",
        "empty brackets",
    ],
)
def test_what_the_user_sees(reply, text):
    assert parse_legacy(reply).text == text


def test_a_region_is_seen_and_lost():
    reply = f"{B}<instruction>a</instruction><region>[1, 2, 3, 4]</region>"
    assert parse_legacy(reply).region == "[1, 2, 3, 4]"
    (call,) = parse(reply, legacy=True).invocations
    assert (call.module, call.region) == ("image_segmentation", None)


def test_nothing_runs_without_a_known_letter():
    assert parse("<module>R</module><instruction>denoise: it</instruction>", legacy=True).invocations == ()


PIECES = [
    *("<module>", "</module>", "<instruction>", "</instruction>", "<region>", "</region>", "<>", "<", ">"),
    *("\n", " ", ":", "A", "F", "remove: a", "</s>", "<Module>"),
]


def test_the_result_is_that_of_the_published_expressions():
    rng = random.Random(0)
    for _ in range(20_000):
        reply = "".join(rng.choice(PIECES) for _ in range(rng.randrange(16)))
        module = re.search("<module>(.*?)</module>", reply)
        region = re.search("<region>(.*?)</region>", reply)
        said = re.findall("<instruction>(.*?)</instruction>", reply)
        found = parse_legacy(reply)
        assert found.text == re.sub("<[^>]+>.*?<[^>]+>", "", reply)
        assert found.module == (module and module[1])
        assert found.region == (region and region[1])
        assert list(found.instruction) == [each.split(":")[-1].strip() for each in said]
