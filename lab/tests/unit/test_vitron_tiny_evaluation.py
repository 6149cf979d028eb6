# SPDX-License-Identifier: Apache-2.0
"""The evaluation of models whose figures are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from recipes.gates import Requirement, missed
from recipes.vitron_tiny import commands
from recipes.vitron_tiny.ablation import MESSAGES, Message, ablate, ambiguous, combine, difference
from recipes.vitron_tiny.ablation import run_calls as run_parts
from recipes.vitron_tiny.baseline import KeywordRouter
from recipes.vitron_tiny.building import make_config, make_model, make_processor, make_tokenizer
from recipes.vitron_tiny.composing import Drawn
from recipes.vitron_tiny.evaluation import (
    CALLING,
    EXECUTED,
    FIRST_SEED,
    PARTS,
    SILENT,
    TEST_SEED,
    VALIDATION_SEED,
    ShippedModel,
    draw_part,
    judge,
    num_calls_before,
    run_calls,
)
from recipes.vitron_tiny.figures import REQUIREMENTS, SLICES, figures_of, sliced, table
from recipes.vitron_tiny.judging import evaluate_all, page
from recipes.vitron_tiny.tasks import TASKS, assistant_text, corpus, draw_example, draw_task
from vitron.data.example import Example
from vitron.demo.painters import toy_registry
from vitron.demo.scripted import draw
from vitron.model.engine import Vitron
from vitron.protocol.contract import Instruction, Invocation
from vitron.protocol.media import Artefact
from vitron.specialists.words import COLOURS


class Oracle:
    """A model that knows the truth."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        return [assistant_text(example) for example in examples]

    def masks(
        self, examples: Sequence[Example], replies: Sequence[str]
    ) -> list[dict[int, NDArray[np.bool_]]]:
        return [
            {number - num_calls_before(each): mask for number, mask in each.masks.items()}
            for each in examples
        ]


class Mute(Oracle):
    """A model with one reply to everything."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        return ["well"] * len(examples)

    def masks(
        self, examples: Sequence[Example], replies: Sequence[str]
    ) -> list[dict[int, NDArray[np.bool_]]]:
        return [{} for _ in examples]


class Busy(Oracle):
    """A model that segments the star in every message, and marks everything."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        call = "<module>B</module> <instruction>segment: the star</instruction>"
        return [call if constrained else call + "<module>" for _ in examples]

    def masks(
        self, examples: Sequence[Example], replies: Sequence[str]
    ) -> list[dict[int, NDArray[np.bool_]]]:
        return [
            {number - num_calls_before(each): np.ones_like(mask) for number, mask in each.masks.items()}
            for each in examples
        ]


def turns_of(part: str, count: int, tasks: Sequence[str] = TASKS) -> list[Drawn]:
    return list(draw_part(PARTS[part], 0, count, tasks))


def test_tasks_are_silent_or_call() -> None:
    assert set(SILENT) | set(CALLING) == set(TASKS)
    assert not set(SILENT) & set(CALLING)
    assert set(EXECUTED) <= set(CALLING)


def test_evaluation_seeds_are_no_pool_seeds() -> None:
    assert min(VALIDATION_SEED, TEST_SEED) >= FIRST_SEED
    assert VALIDATION_SEED != TEST_SEED


def test_oracle_reaches_all() -> None:
    """Only what the toy painter cannot find, and bounds of few examples, are below 1."""
    report = evaluate_all(Oracle(), seeds=(0, 10, 20), count=2)
    assert set(report.figures) == set(report.baseline) == set(PARTS)
    assert set(report.slices) == set(SLICES)
    for part in report.figures.values():
        assert part["spurious_calls_all"] == part["malformed"] == 0
        measured = [name for name in part if not name.startswith(("spurious", "malformed", "executed"))]
        exact = [name for name in measured if not name.endswith(("_lower", "_upper", "_commonest", "_gain"))]
        assert {part[name] for name in exact} == {1.0}
        if "executed" in part:
            assert part["executed"] == part["executed_right"] > 0.5
        if "question" in part:
            assert part["question_gain"] == pytest.approx(1 - part["question_commonest"])
    assert [each["test"]["modules"] for each in report.runs] == [1, 1, 1]
    # too few examples for what is counted; what is averaged over seeds is reached
    named = {line.split()[0] for line in missed(REQUIREMENTS, report.runs, report.figures)}
    assert {"test.modules", "conversations.later_right_call"} <= named
    assert not any("ciou" in name or "miou" in name for name in named)
    assert "| modules |" in page(report)


def test_slices_of_conversations() -> None:
    judged = judge(Oracle(), turns_of("conversations", 10))
    turns, worlds, forms = (sliced(judged, name) for name in ("turn", "world", "form"))
    assert list(turns) == ["1", "2", "3", "4"]
    assert set(worlds) == {"drawn", "flat", "none"}
    assert {"independent", "it", "other", "correction"} <= set(forms)
    assert sum(each["turns"] for each in turns.values()) == len(judged)
    assert all(each["right_call"] == 1 for each in turns.values())


def test_what_the_specialists_cannot_find_is_a_miss() -> None:
    """The right call counts as not executed if the toy painter does not know the object."""
    example = draw_example("text_to_image", 0, 0)
    image = Artefact("image", np.full((64, 64, 3), 200, dtype=np.uint8))
    call = (
        example.messages[-1]
        .calls[0]
        .model_copy(
            update={"module": "image_editing", "instruction": (Instruction(verb="remove", text="the star"),)}
        )
    )
    messages = (example.messages[0], example.messages[-1].model_copy(update={"calls": (call,)}))
    example = replace(example, messages=messages, media=(image,))
    assert run_calls(toy_registry(), example, assistant_text(example)) == (False, False)


def test_mute_misses_what_calls() -> None:
    lines: list[str] = []
    figures = figures_of(judge(Mute(), turns_of("test", 12), batch_size=8, log=lines.append))
    assert lines
    assert figures["modules"] == figures["instructions"] == figures["executed"] == 0
    assert figures["referring_segmentation_ciou"] == figures["region_caption"] == 0
    assert figures["spurious_calls"] == figures["malformed"] == 0
    assert figures["question_gain"] < 0


def test_busy_calls_without_need() -> None:
    tasks = ("question", "no_call", "sketch_segmentation")
    figures = figures_of(judge(Busy(), turns_of("test", 3, tasks)))
    assert figures["spurious_calls"] == figures["malformed"] == figures["modules"] == 1
    assert figures["instructions"] == 0
    assert 0 < figures["sketch_segmentation_ciou"] < 1
    held = figures_of(judge(Busy(), turns_of("test", 2, ("question",)), constrained=True))
    assert held["malformed"] == 0


def test_baseline_routes_by_words() -> None:
    """Some calls are right, fewer than all, and references back are missed."""
    figures = figures_of(judge(KeywordRouter(), turns_of("test", 10)))
    assert 0.2 < figures["modules"] < 0.9
    assert 0 < figures["instructions"] < figures["modules"]
    forms = sliced(judge(KeywordRouter(), turns_of("conversations", 10)), "form")
    assert forms["it"]["right_call"] < 0.1


def test_table_shows_each_figure() -> None:
    text = table({"one": {"turns": 3, "a_b": 0.5}, "two": {"a_b": 0.25}})
    assert text.splitlines()[2:] == ["| turns | 3 |  |", "| a b | 0.500 | 0.250 |"]


def test_results_alike_or_only_done() -> None:
    drawn = (draw_task("editing", 0, index) for index in range(80))
    flat = (each.example for each in drawn if each.world == "flat" and not each.example.regions)
    example = next(each for each in flat if each.group == "recolour")
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
    return Vitron(make_model(config), make_processor(tokenizer))


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
    figures = figures_of(judge(ShippedModel(nano), turns_of("test", 1, ("question", "tracking"))))
    assert 0 <= figures["tracking_miou"] <= 1
    assert figures["modules"] == 0


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
    # outlines of the toy segmenter are not exact where objects have patterns
    for figure in ("combined_referring_ciou", "combined_sketch_ciou", "combined_tracking_miou"):
        assert 1 == signal[figure] >= hybrid[figure] > 0.9
        assert hybrid[figure] > text[figure]
    assert text["ambiguous_edits"] == hybrid["ambiguous_edits"]


def test_of_what_words_name_the_signals_choose() -> None:
    image = Artefact("image", draw(("circle", "red", 8, 8, 30), ("circle", "blue", 8, 56, 30)))
    red, blue = (
        (image.data == np.array(COLOURS[name], dtype=np.uint8)).all(axis=-1) for name in ("red", "blue")
    )
    rough = np.zeros((1, *image.size), dtype=np.bool_)
    rough[0, 6:38, 6:40] = True  # the red circle, and what is around it
    registry = toy_registry()

    def found(message: Message, text: str = "the circle", mask: NDArray[np.bool_] | None = rough) -> Any:
        call = Invocation(module="image_segmentation", instruction=(Instruction(verb="segment", text=text),))
        artefact = combine(registry, message, call, image, mask)
        return None if artefact is None else np.asarray(artefact.data, dtype=np.bool_).any(axis=(0, 1))

    assert np.array_equal(found("text"), red | blue)
    assert np.array_equal(found("signal"), rough[0])
    # the outline of the words, of the object that the signals mean
    assert np.array_equal(found("hybrid"), red)
    # words that name nothing, or something else, leave it to the signals; no signals leave it to the words
    assert np.array_equal(found("hybrid", "this"), rough[0])
    assert np.array_equal(found("hybrid", "the blue circle"), rough[0])
    assert np.array_equal(found("hybrid", mask=None), red | blue)
    assert found("text", "this") is None


def test_an_edit_without_its_colour_needs_the_signals() -> None:
    image = Artefact("image", draw(("circle", "red", 8, 8, 30), ("circle", "blue", 8, 56, 30)))
    lone = Artefact("image", draw(("circle", "red", 8, 8, 30), ("star", "blue", 8, 56, 30)))

    def edit(text: str) -> Invocation:
        return Invocation(module="image_editing", instruction=(Instruction(verb="recolour", text=text),))

    call = ambiguous(edit("the red circle to green"), image)
    assert call is not None
    assert call.instruction[0].text == "the circle to green"
    assert ambiguous(edit("the red circle to green"), lone) is None
    assert ambiguous(edit("the circle to green"), image) is None
    mask = (image.data == np.array(COLOURS["red"], dtype=np.uint8)).all(axis=-1)
    registry = toy_registry()
    text, hybrid, wanted = (
        run_parts(registry, message, said, image, mask[None])
        for message, said in (("text", call), ("hybrid", call), ("text", edit("the red circle to green")))
    )
    assert hybrid is not None
    assert wanted is not None
    assert np.array_equal(hybrid.data, wanted.data)
    assert text is None or not np.array_equal(text.data, wanted.data)


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
    monkeypatch.setattr(commands, "DOCS", tmp_path)
    # what few examples can show
    monkeypatch.setattr(commands, "REQUIREMENTS", (Requirement(figure="test.modules", at_least=0.8),))
    monkeypatch.setattr(commands, "QUESTIONS", Requirement(figure="test.question", at_least=0.5))
    found = recipes("vitron", "judge", "--count", 1, "--write")
    assert found.exit_code == code, found.stdout
    assert ("missed: test.modules" in found.stdout) is bool(code)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["passed"] is not bool(code)
    assert card["questions"] == ("no skill" if code else "skill")
    assert card["evaluated_on"]["set"] == "validation"
    assert set(card["figures"]) == set(card["baseline"]) == set(PARTS)
    assert [each["seeds"] for each in card["readings"]] == [[6100, 6110, 6120]]
    assert "By turn" in (tmp_path / "results-table.md").read_text()


def test_report_needs_results(tmp_path: Path, recipes: Callable[..., Any]) -> None:
    found = recipes("vitron", "report", tmp_path)
    assert found.exit_code == 2
    assert "run synergy first" in found.stderr
