# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
import typer
from recipes import __main__ as main
from typer.testing import CliRunner


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rooms whose judges leave their name, and of which ``clip`` misses."""
    judged: list[str] = []

    def import_module(module: str) -> SimpleNamespace:
        room = typer.Typer()

        @room.command()
        def judge() -> None:
            judged.append(module.split(".")[1])
            raise typer.Exit(int("clip" in module))

        @room.command()
        def other(number: int) -> None:
            judged.append(f"{module}:{number}")

        return SimpleNamespace(app=room)

    monkeypatch.setattr(main, "import_module", import_module)
    return judged


def test_judge_goes_through_all_rooms_and_names_the_miss(rooms: list[str]) -> None:
    result = CliRunner().invoke(main.app, ["judge"])
    assert rooms == [
        "tiny_denoise",
        "tiny_clip",
        "tiny_sdxl",
        "probes",
        "segmentation",
        "features",
        "upscaling",
        "vitron_tiny",
    ]
    assert result.exit_code == 1
    assert "missed: clip" in result.output


def test_judge_of_one_room(rooms: list[str]) -> None:
    assert CliRunner().invoke(main.app, ["judge", "probes"]).exit_code == 0
    assert rooms == ["probes"]


def test_a_room_gets_its_arguments(rooms: list[str]) -> None:
    assert CliRunner().invoke(main.app, ["sdxl", "other", "3"]).exit_code == 0
    assert rooms == ["recipes.tiny_sdxl.commands:3"]


def test_unknown_room_is_refused(rooms: list[str]) -> None:
    assert CliRunner().invoke(main.app, ["judge", "vae"]).exit_code == 2
    assert rooms == []
