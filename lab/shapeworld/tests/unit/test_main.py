# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from PIL import Image
from shapeworld.__main__ import app
from shapeworld.sheet import STRIPS
from typer.testing import CliRunner


@pytest.mark.parametrize("what", STRIPS)
def test_show_writes_a_sheet(what: str, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    result = CliRunner().invoke(
        app, ["show", what, "-o", str(out), "--count", "3", "--columns", "2", "--side", "64"]
    )
    assert result.exit_code == 0, result.output
    page = Image.open(out)
    assert page.width >= 2 * 2 * 64
    assert page.height >= 2 * 64
    assert len(page.getcolors(maxcolors=10**6) or ()) > 100


def test_show_refuses_a_side_out_of_range(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["show", "-o", str(tmp_path / "x.png"), "--side", "8"])
    assert result.exit_code == 2
    assert not any(tmp_path.iterdir())


def test_bench_prints_a_rate() -> None:
    result = CliRunner().invoke(app, ["bench", "--seconds", "0.2", "--processes", "1"])
    assert result.exit_code == 0
    assert int(result.output.split()[0]) > 0
