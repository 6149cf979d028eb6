# SPDX-License-Identifier: Apache-2.0
"""Pages of numerical checks name tests that exist, and leave no check out."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/*/checks.md"))
# their checks are numbered as in the published description of the method
NUMBERED = [page for page in PAGES if page.parent.name in {"diffeat", "itaclip", "pixelsmith"}]
_NAMED = re.compile(r"`([\w/-]+\.py)(?:::(\w+))?`")


@cache
def functions(file: Path) -> set[str]:
    return set(re.findall(r"^ *def (\w+)", file.read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_named_tests_exist(page):
    named = _NAMED.findall(page.read_text("utf-8"))
    assert named
    tests = ROOT / "packages" / page.parent.name / "tests"
    gone = []
    for file, name in named:
        path = next((each for each in (tests / file, ROOT / file) if each.is_file()), None)
        if path is None or (name and name not in functions(path)):
            gone.append(f"{file}::{name}")
    assert gone == []


@pytest.mark.parametrize("page", NUMBERED, ids=lambda page: page.parent.name)
def test_every_numbered_check_has_a_test(page):
    rows = re.findall(r"^\| (\d+) \|(.*)$", page.read_text("utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    # a check that no test can hold says so, and why
    assert [number for number, row in rows if not _NAMED.search(row) and "none: " not in row] == []
