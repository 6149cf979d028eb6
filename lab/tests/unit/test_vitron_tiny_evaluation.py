# SPDX-License-Identifier: Apache-2.0
"""The judgement of models whose worth is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from recipes.vitron_tiny import commands
from recipes.vitron_tiny.ablation import MESSAGES, ablate, difference
from recipes.vitron_tiny.building import make_config, make_model, make_tokenizer, tiny_processor
from recipes.vitron_tiny.evaluation import (
    CALLING,
    EXECUTED,
    PARTS,
    SILENT,
    ShippedModel,
    evaluate_all,
    judge,
    run_calls,
    table,
)
from recipes.vitron_tiny.scoring import missed_requirements
from recipes.vitron_tiny.tasks import TASKS, assistant_text, corpus, draw_example
from vitron.data.example import Example
from vitron.demo.painters import toy_registry
from vitron.model.engine import Vitron
from vitron.protocol.media import Artefact


class Oracle:
    """Knows the truth."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        return [assistant_text(example) for example in examples]

    def masks(
        self, examples: Sequence[Example], replies: Sequence[str]
    ) -> list[dict[int, NDArray[np.bool_]]]:
        return [dict(example.masks) for example in examples]


class Mute(Oracle):
    """Says one word, whatever is asked."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        return ["well"] * len(examples)

    def masks(
        self, examples: Sequence[Example], replies: Sequence[str]
    ) -> list[dict[int, NDArray[np.bool_]]]:
        return [{} for _ in examples]


class Busy(Oracle):
    """Calls for a mask, whatever is asked, and marks everything."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        call = "<module>B</module> <instruction>segment: the star</instruction>"
        return [call if constrained else call + "<module>" for _ in examples]

    def masks(
        self, examples: Sequence[Example], replies: Sequence[str]
    ) -> list[dict[int, NDArray[np.bool_]]]:
        return [{0: np.ones_like(example.masks[0])} for example in examples]


def test_tasks_are_silent_or_call() -> None:
    assert set(SILENT) | set(CALLING) == set(TASKS)
    assert not set(SILENT) & set(CALLING)
    assert set(EXECUTED) <= set(CALLING)


def test_oracle_reaches_all() -> None:
    figures = evaluate_all(Oracle(), seed=0, count=4)
    assert set(figures) == set(PARTS)
    for part in figures.values():
        assert part["spurious_calls"] == part["spurious_calls_all"] == 0
        others = {name: value for name, value in part.items() if not name.startswith("spurious")}
        assert all(value == pytest.approx(1) for value in others.values()), others
    assert missed_requirements(figures["test"]) == []
    assert table(figures).count("\n") == 1 + len(figures["test"])


def test_mute_misses_what_calls() -> None:
    lines: list[str] = []
    figures = judge(Mute(), "test", seed=0, count=3, log=lines.append)
    assert len(lines) == len(TASKS)
    assert figures["module_accuracy"] == figures["instruction_exact"] == figures["execution_rate"] == 0
    assert figures["referring_ciou"] == figures["sketch_ciou"] == figures["region_caption"] == 0
    assert figures["spurious_calls"] == 0
    assert figures["parse_rate"] == 1


def test_busy_calls_without_need() -> None:
    figures = judge(Busy(), "test", seed=0, count=3, tasks=("question", "no_call", "sketch_segmentation"))
    assert figures["spurious_calls"] == 1
    assert figures["parse_rate"] == 0
    assert figures["module_accuracy"] == 1
    assert figures["instruction_exact"] == 0
    assert 0 < figures["sketch_ciou"] < 1
    held = judge(Busy(), "test", seed=0, count=2, tasks=("question",), constrained=True)
    assert held["parse_rate"] == 1


def test_carry_out_tells_alike_from_done() -> None:
    drawn = (draw_example("editing", 0, index) for index in range(50))
    example = next(each for each in drawn if each.group == "recolour")
    truth = assistant_text(example)
    colour = example.messages[-1].calls[0].instruction[0].text.split()[-1]
    other = "red" if colour != "red" else "green"
    assert run_calls(toy_registry(), example, truth) == (True, True)
    assert run_calls(toy_registry(), example, truth.replace(f"to {colour}", f"to {other}")) == (True, False)
    assert run_calls(toy_registry(), example, truth.replace(f"to {colour}", "to music")) != (True, True)
    assert run_calls(toy_registry(), example, "I changed it.") == (False, False)
    assert run_calls(toy_registry(), example, truth + truth) == (False, False)


@pytest.fixture(scope="module")
def nano() -> Vitron:
    tokenizer = make_tokenizer(corpus(5, 5 * len(TASKS)), size=400)
    config = make_config(tokenizer, "nano")
    return Vitron(make_model(config), tiny_processor(tokenizer, config))


def test_shipped_masks_need_signals(nano: Vitron) -> None:
    """A call with all its signals has a mask on the image; without them there is none."""
    model = ShippedModel(nano)
    examples = [draw_example(task, 0, 0) for task in ("tracking", "tracking", "caption", "text_to_image")]
    whole = [nano.encoder.assistant_text(example.messages[-1]) for example in examples]
    replies = [whole[0], assistant_text(examples[1]), *whole[2:]]
    found = model.masks(examples, replies)
    assert [sorted(each) for each in found] == [[0], [], [], []]
    assert found[0][0].shape == examples[0].masks[0].shape
    assert found[0][0].dtype == np.bool_


def test_shipped_masks_follow_the_words(nano: Vitron) -> None:
    """Signals are read behind what was said: other words, other signals."""
    model = ShippedModel(nano)
    example = draw_example("referring_segmentation", 0, 0)
    reply = nano.encoder.assistant_text(example.messages[-1])
    seen: list[NDArray[np.float32]] = []

    def mask(signal: NDArray[np.float32], module: str, artefact: Artefact) -> NDArray[np.bool_]:
        seen.append(signal)
        return np.zeros((1, *artefact.size), dtype=np.bool_)

    nano.mask, before = mask, nano.mask  # type: ignore[method-assign]
    try:
        model.masks([example, example], [reply, reply.replace("segment: the ", "segment: the other ")])
    finally:
        nano.mask = before  # type: ignore[method-assign]
    assert len(seen) == 2
    assert not np.allclose(seen[0], seen[1])


def test_untrained_model_is_judged(nano: Vitron) -> None:
    figures = judge(ShippedModel(nano), "test", seed=0, count=1, tasks=("question", "tracking"))
    assert 0 <= figures["tracking_miou"] <= 1
    assert figures["module_accuracy"] == 0


def test_messages_on_a_model_that_knows_all() -> None:
    """Words do what signals cannot name, signals mark what words cannot, and both together do all."""
    logged: list[str] = []
    figures = ablate(Oracle(), seed=0, count=12, log=logged.append)
    assert len(logged) == 5
    text, signal, hybrid = (figures[message] for message in MESSAGES)
    assert hybrid["execution_rate"] == 1
    assert hybrid["referring_ciou"] == hybrid["sketch_ciou"] == hybrid["tracking_miou"] == 1
    assert hybrid["editing_error"] == hybrid["video_editing_error"] == 0
    # "segment: this" says nothing to one who reads words alone
    assert text["execution_rate_sketch_segmentation"] == text["sketch_ciou"] == 0
    assert text["execution_rate_video_editing"] == 1
    assert text["referring_ciou"] < 1
    assert signal["referring_ciou"] == signal["sketch_ciou"] == 1
    assert signal["execution_rate_editing"] == 0
    assert signal["editing_error"] > 0


def test_messages_of_a_model_that_calls_nothing() -> None:
    figures = ablate(Mute(), seed=0, count=3)
    assert all(each["execution_rate"] == 0 for each in figures.values())
    assert all(each["editing_error"] > 0 for each in figures.values())


def test_difference_of_pictures() -> None:
    black = Artefact("image", np.zeros((2, 2, 3), dtype=np.uint8))
    half = black.data.copy()
    half[0] = 255
    assert difference(black, black) == 0
    assert difference(black, Artefact("image", half)) == 0.5


@pytest.mark.parametrize(("model", "code"), [(Oracle, 0), (Mute, 1)])
def test_judge_command(
    model: type[Oracle],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    recipes: Callable[..., Any],
) -> None:
    monkeypatch.setattr(commands, "_load", lambda folder, device: None)
    monkeypatch.setattr(commands, "_facts", lambda vitron, folder: {"bytes": 1})
    monkeypatch.setattr(commands, "ShippedModel", lambda vitron: model())
    monkeypatch.setattr(commands, "CARD", tmp_path / "card.json")
    found = recipes("vitron", "judge", "--count", 4, "--seed", 0, "--write")
    assert found.exit_code == code, found.stderr
    assert ("missed: module_accuracy" in found.stdout) is bool(code)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["passed"] is not bool(code)
    assert set(card["figures"]) == set(PARTS)


def test_report_needs_results(tmp_path: Path, recipes: Callable[..., Any]) -> None:
    found = recipes("vitron", "report", tmp_path)
    assert found.exit_code == 2
    assert "run synergy first" in found.stderr
