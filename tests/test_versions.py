# SPDX-License-Identifier: Apache-2.0
import re
import tomllib
from importlib import import_module
from importlib.metadata import metadata, version

HEADING = re.compile(r"^## \[?(\d+\.\d+\.\d+)\]?( - (\d{4}-\d\d-\d\d|unreleased))?$", re.MULTILINE)
RANGE = re.compile(r"^common-kernels\[runtime(?:,video)?\]>=(\d+)\.(\d+)(\.\d+)?,<(\d+)\.(\d+)$")


def test_one_version(package):
    headings = HEADING.findall((package.folder / "CHANGELOG.md").read_text("utf-8"))
    assert headings, "CHANGELOG.md has no heading such as '## 0.1.0 - 2026-01-31'"
    assert headings[0][0] == package.project["version"]
    assert version(package.name) == package.project["version"]
    assert import_module(package.module).__version__ == package.project["version"]


def test_metadata_is_complete(package):
    held = metadata(package.name)
    assert held["License-Expression"] == "Apache-2.0"
    assert held["Requires-Python"] == ">=3.11"
    assert held["Summary"]
    assert "Typing :: Typed" in held.get_all("Classifier")
    assert (package.source / "py.typed").is_file()
    assert (package.folder / "LICENSE").is_file()
    assert (package.folder / "README.md").read_text("utf-8").count("\n") > 20


def test_method_packages_need_a_range_of_common_kernels_and_its_runtime(package):
    pins = [line for line in package.project["dependencies"] if line.startswith("common-kernels")]
    if package.name == "common-kernels":
        assert pins == []
        return
    assert len(pins) == 1
    low_major, low_minor, _, high_major, high_minor = RANGE.match(pins[0]).groups()
    held = tuple(map(int, version("common-kernels").split(".")[:2]))
    assert (int(low_major), int(low_minor)) <= held < (int(high_major), int(high_minor))


def test_the_citation_names_every_package(root, packages):
    text = (root / "CITATION.cff").read_text("utf-8")
    assert [package.name for package in packages if package.name not in text] == []


def test_constraints_are_names_and_versions(root):
    line = re.compile(r"[a-z0-9][a-z0-9-]*==[0-9][\w.]*( ; [\w .'<>=!()-]+)?")
    lines = [text for text in (root / "constraints.txt").read_text("utf-8").splitlines() if text[:1] != "#"]
    assert len(lines) > 50
    assert [text for text in lines if not line.fullmatch(text)] == []


def test_constraints_hold_every_direct_dependency(root, packages):
    held = re.findall(r"^([a-z0-9-]+)==", (root / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    tables = [package.project for package in packages]
    tables.append(tomllib.loads((root / "lab" / "pyproject.toml").read_text("utf-8"))["project"])
    named = [line for table in tables for line in table["dependencies"]]
    named += [
        line
        for table in tables
        for lines in table.get("optional-dependencies", {}).values()
        for line in lines
    ]
    ours = {"photoworld", "shapeworld"} | {package.name for package in packages}
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower() for line in named} - ours
    assert sorted(names - set(held)) == []
