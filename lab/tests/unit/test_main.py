# SPDX-License-Identifier: Apache-2.0
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from common_kernels.runtime.cli import OutputPath, run_app
from recipes import __main__ as shared
from recipes.making import MODELS, steps_of


@pytest.fixture
def main() -> ModuleType:
    """A copy of the module, since an application keeps the commands that it has imported."""
    spec = spec_from_file_location("main_of_recipes", shared.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def judged(main: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Recipes whose judge leaves its name, and of which ``clip`` misses."""
    names: list[str] = []

    def fake(folder: str) -> SimpleNamespace:
        def judge() -> int:
            names.append(folder)
            return int("clip" in folder)

        def samples(number: int, /) -> None:
            names.append(f"{folder}:{number}")

        return SimpleNamespace(judge=judge, gate=judge, samples=samples)

    for folder, functions, _ in main.RECIPES.values():
        for path in functions.split():
            module = path.rpartition(":")[0] or "commands"
            monkeypatch.setitem(sys.modules, f"recipes.{folder}.{module}", fake(folder))
    return names


def test_judge_goes_through_all_recipes_and_names_the_miss(
    main: ModuleType, judged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(main.app, ["judge"]) == 1
    assert judged == [
        "restoration",
        "tiny_clip",
        "tiny_sdxl",
        "probes",
        "segmentation",
        "features",
        "upscaling",
        "vitron_tiny",
    ]
    assert "missed: clip" in capsys.readouterr().err


def test_judge_of_one_recipe(main: ModuleType, judged: list[str]) -> None:
    assert run_app(main.app, ["judge", "probes"]) == 0
    assert judged == ["probes"]


def test_a_recipe_gets_its_arguments(main: ModuleType, judged: list[str]) -> None:
    assert run_app(main.app, ["sdxl", "samples", "3"]) == 0
    assert judged == ["tiny_sdxl:3"]


def test_unknown_recipe_is_refused(
    main: ModuleType, judged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(main.app, ["judge", "vae"]) == 2
    assert "got vae" in capsys.readouterr().err
    assert judged == []


def test_the_overview_imports_no_recipe(main: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(sys.modules)
    assert run_app(main.app, ["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("restoration", "vitron", "judge"))
    assert not [name for name in set(sys.modules) - before if name.startswith("recipes")]


@pytest.mark.parametrize("model", MODELS)
def test_the_commands_that_make_a_model_are_right(main: ModuleType, model: str, tmp_path: Path) -> None:
    """A task, a stage or an option that a recipe no longer has is told here, not after hours."""
    for step in steps_of(model, tmp_path, ship=True):
        command, bound, _ = main.app.parse_args(step, exit_on_error=False, print_error=False)
        assert command.__name__ == step[1]
        assert bound.arguments


def test_make_runs_the_steps_in_order_and_ships_only_when_told(
    main: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran: list[str] = []

    def train(*, output: OutputPath) -> None:
        ran.append("train")

    monkeypatch.setitem(sys.modules, "recipes.probes.training", SimpleNamespace(train=train))
    assert run_app(main.app, ["make", "probe", "-o", str(tmp_path), "--dry-run"]) == 0
    assert not ran
    assert f"python -m recipes probes train -o {tmp_path}" in capsys.readouterr().err
    assert run_app(main.app, ["make", "probe", "-o", str(tmp_path)]) == 0
    assert ran == ["train"]
    assert run_app(main.app, ["make", "nothing", "-o", str(tmp_path)]) == 2
