# SPDX-License-Identifier: Apache-2.0
"""The page of checks names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parents[2] / "docs" / "vitron" / "checks.md"


def test_every_check_names_a_test_that_exists():
    named = re.findall(r"`((?:unit|properties)/[\w/]+\.py)(?:::(\w+))?`", PAGE.read_text("utf-8"))
    assert len(named) > 30
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (TESTS / file).is_file() or (test and f"def {test}(" not in (TESTS / file).read_text("utf-8"))
    ]
    assert missing == []


def test_the_checks_are_numbered_from_1_to_40():
    cells = re.findall(r"^\| ([\d, ]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [int(number) for cell in cells for number in cell.split(",")] == list(range(1, 41))
