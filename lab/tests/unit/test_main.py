# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
import typer
from recipes import __main__ as main
from typer.testing import CliRunner


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Recipes whose judge leaves its name, and of which ``clip`` misses."""
    names: list[str] = []

    def import_module(module: str) -> SimpleNamespace:
        recipe = typer.Typer()

        @recipe.command()
        def judge() -> None:
            names.append(module.split(".")[1])
            raise typer.Exit(int("clip" in module))

        @recipe.command()
        def other(number: int) -> None:
            names.append(f"{module}:{number}")

        return SimpleNamespace(app=recipe)

    monkeypatch.setattr(main, "import_module", import_module)
    return names


def test_judge_goes_through_all_recipes_and_names_the_miss(judged: list[str]) -> None:
    result = CliRunner().invoke(main.app, ["judge"])
    assert judged == [
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


def test_judge_of_one_recipe(judged: list[str]) -> None:
    assert CliRunner().invoke(main.app, ["judge", "probes"]).exit_code == 0
    assert judged == ["probes"]


def test_a_recipe_gets_its_arguments(judged: list[str]) -> None:
    assert CliRunner().invoke(main.app, ["sdxl", "other", "3"]).exit_code == 0
    assert judged == ["recipes.tiny_sdxl.commands:3"]


def test_unknown_recipe_is_refused(judged: list[str]) -> None:
    assert CliRunner().invoke(main.app, ["judge", "vae"]).exit_code == 2
    assert judged == []
