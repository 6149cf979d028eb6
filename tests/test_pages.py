# SPDX-License-Identifier: Apache-2.0
"""The site: every page can be found, every package has a notebook that ran."""

import html
import json
import re
import runpy

import pytest

MAX_BYTES = 200_000


def test_every_page_is_in_the_navigation_once(root, tree):
    nav = (root / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    listed = re.findall(r"([\w/-]+\.md)$", nav, re.MULTILINE)
    pages = {
        str(f.relative_to(root / "docs")) for f in tree if f.suffix == ".md" and root / "docs" in f.parents
    }
    pages |= {f"notebooks/{file.stem}.md" for file in (root / "docs" / "notebooks").glob("*.ipynb")}
    assert len(listed) == len(set(listed))
    assert pages == set(listed)


def test_every_extra_is_on_the_install_page(root, package, packages):
    text = (root / "docs" / "start" / "install.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[\w`, ]+`) \| ([\w ,-]+?) \|", text, re.MULTILINE)
    told = {
        name
        for extras, owners in rows
        if package.name in owners.split(", ")
        for name in re.findall(r"\w+", extras)
    }
    # those that other packages require are asked for by the extras of these
    lines = str([each.project for each in packages])
    inner = ",".join(re.findall(rf"{package.name}\[([\w,]+)\]", lines)).split(",")
    assert told == set(package.project.get("optional-dependencies", {})) - set(inner)


@pytest.fixture
def notebook(root, package):
    return root / "docs" / "notebooks" / f"{package.name}.ipynb"


def test_a_notebook_is_kept_as_it_ran(notebook, package):
    cells = [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert notebook.stat().st_size < MAX_BYTES
    assert f"import {package.module}" in str(cells) or f"from {package.module}" in str(cells)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}


def test_what_a_notebook_installs_is_its_package(notebook, package):
    assert f"%pip install --quiet {package.name}" in notebook.read_text("utf-8")


def test_a_notebook_imports_what_its_package_brings(notebook, package):
    """What the notebook installs is enough: other libraries for demonstrations are not at hand."""
    text = "".join(
        "".join(cell["source"]) + "\n" for cell in json.loads(notebook.read_text("utf-8"))["cells"]
    )
    named = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
    assert package.module in named
    assert not named & {"skimage", "sklearn", "matplotlib", "scipy", "pandas"}


def test_screens_of_the_terminal_are_small_complete_and_shown(root):
    screens = runpy.run_path(str(root / "tools" / "terminal.py"))["SCREENS"]
    files = {file.stem: file for file in (root / "docs" / "assets" / "terminal").iterdir()}
    assert set(files) == set(screens)
    pages = "".join(file.read_text("utf-8") for file in (root / "docs" / "howto").glob("*.md"))
    for name, file in files.items():
        content = file.read_text("utf-8")
        assert file.stat().st_size < 60_000
        assert "url(http" not in content, "pages load nothing from elsewhere"
        shown = html.unescape("".join(re.findall(r"<text[^>]*>(.*?)</text>", content))).replace("\xa0", " ")
        for command in screens[name]:
            assert command.replace(" ", "") in shown.replace(" ", "")
        assert f"assets/terminal/{name}.svg" in pages


def test_pages_use_the_words_of_the_glossary(root):
    glossary = (root / "CONTRIBUTING.md").read_text("utf-8").split("### Glossary")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in glossary.splitlines() if line.startswith("| ")]
    cells = [re.sub(r"\([^)]*\)", "", row[2]).split(",") for row in rows[2:]]
    # a single word may have another sense; what has several is unmistakable
    unused = {term.strip() for cell in cells for term in cell if re.search(r"\w[ -]\w", term)}
    assert "bare rule" in unused
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *root.glob("packages/*/*.md")]
    found = re.compile(rf"\b({'|'.join(map(re.escape, unused))})s?\b", re.IGNORECASE)
    named = {
        f"{page.relative_to(root)}: {hit[0]}"
        for page in pages
        for hit in found.finditer(page.read_text("utf-8"))
    }
    assert sorted(named) == []
