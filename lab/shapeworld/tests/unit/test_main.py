# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
from common_kernels.runtime.cli import run_app
from PIL import Image
from shapeworld.__main__ import app
from shapeworld.sheet import STRIPS


@pytest.mark.parametrize("what", STRIPS)
def test_show_writes_a_sheet(what: str, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert run_app(app, ["show", what, "-o", str(out), "--count=3", "--columns=2", "--side=64"]) == 0
    page = Image.open(out)
    assert page.width >= 2 * 2 * 64
    assert page.height >= 2 * 64
    assert len(page.getcolors(maxcolors=10**6) or ()) > 100


def test_show_refuses_a_side_out_of_range(tmp_path: Path) -> None:
    assert run_app(app, ["show", "-o", str(tmp_path / "x.png"), "--side", "8"]) == 2
    assert not any(tmp_path.iterdir())


def test_bench_prints_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app, ["bench", "--seconds", "0.2", "--processes", "1"]) == 0
    assert int(capsys.readouterr().out.split()[0]) > 0
    assert run_app(app, ["bench", "--seconds", "0.2", "--processes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenes_per_second"] > 0
