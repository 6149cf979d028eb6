# SPDX-License-Identifier: Apache-2.0
"""The page of checks names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
KERNELS = TESTS.parents[1] / "common-kernels" / "tests"
PAGE = TESTS.parents[2] / "docs" / "semanir" / "checks.md"


def test_every_check_names_a_test_that_exists():
    pattern = r"`(ck:)?((?:unit|properties|parity|gpu)/[\w/]+\.py)(?:::(\w+))?`"
    named = re.findall(pattern, PAGE.read_text("utf-8"))
    assert len(named) > 30
    missing = []
    for kernels, file, test in named:
        place = (KERNELS if kernels else TESTS) / file
        if not place.is_file() or (test and f"def {test}(" not in place.read_text("utf-8")):
            missing.append(f"{file}::{test}")
    assert missing == []


def test_the_checks_are_numbered_from_1_to_26():
    cells = re.findall(r"^\| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [int(cell) for cell in cells] == list(range(1, 27))
