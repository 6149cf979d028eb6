# SPDX-License-Identifier: Apache-2.0
"""The program that the page of the runtime shows works as the page says."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

FILE = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def invert(root, tmp_path):
    page = (root / "docs" / "common-kernels" / "runtime.md").read_text("utf-8")
    files = dict(FILE.findall(page))
    assert sorted(files) == ["invert/cli/__init__.py", "invert/cli/run.py", "invert/config.py"]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")

    def call(*arguments):
        command = [sys.executable, "-c", "from invert.cli import main; main()", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)

    return call


def test_the_program_of_the_page_works(invert, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (6, 4), (250, 100, 0)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.png").write_text("no image")

    first = invert("run", "photos", "-o", "negatives", "--json")
    assert first.returncode == 1, first.stderr
    statuses = [json.loads(line)["status"] for line in first.stdout.splitlines()]
    assert statuses == ["done", "failed"]
    assert "b.png" in first.stderr
    assert Image.open(tmp_path / "negatives" / "a.png").getpixel((0, 0)) == (5, 155, 255)

    again = invert("run", "photos/a.png", "-o", "negatives", "--json")
    assert (again.returncode, json.loads(again.stdout)["status"]) == (0, "skipped")
    changed = invert("run", "photos/a.png", "-o", "negatives", "--json", "--strength", "0.5")
    assert (changed.returncode, json.loads(changed.stdout)["status"]) == (0, "done")

    wrong = invert("run", "photos/a.png", "-o", "negatives", "--strength", "2")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "invert: strength must be in [0, 1], got 2.0\n"
    shown = invert("run", "--help")
    assert "Strength of the effect" in shown.stdout
    assert "Examples" in shown.stdout
