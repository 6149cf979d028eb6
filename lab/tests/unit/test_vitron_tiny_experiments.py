# SPDX-License-Identifier: Apache-2.0
"""The study of synergy, on the smallest scale, and its arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipes.vitron_tiny.building import make_config, make_model, make_processor, make_tokenizer
from recipes.vitron_tiny.experiments import (
    Plan,
    exact_rows,
    mask_pairs,
    named_rows,
    run_pairs,
    run_seed,
    teacher_force,
)
from recipes.vitron_tiny.results import MEASURES, draw_figure, markdown, matrix, read_results, summarise
from recipes.vitron_tiny.tasks import TASKS, corpus, draw_example
from skimage.io import imread
from vitron.model import ConversationEncoder, VitronForConditionalGeneration

SMALLEST = Plan(base_steps=2, arm_steps=2, batch_size=8, pool_size=60, tests=4, probe=2)


@pytest.fixture(scope="module")
def nano() -> tuple[VitronForConditionalGeneration, ConversationEncoder]:
    tokenizer = make_tokenizer(corpus(5, 10 * len(TASKS)), size=400)
    config = make_config(tokenizer, "nano")
    return make_model(config).eval(), ConversationEncoder(make_processor(tokenizer), config)


def result(arm: str, seed: int, value: float, setting: str = "full", **more: float) -> dict[str, object]:
    figures = dict.fromkeys(MEASURES, value)
    return {"setting": setting, "arm": arm, "seed": seed, "figures": figures, **more}


def test_summarise_pairs_seeds() -> None:
    rows = summarise(
        [result("off", 0, 0.5), result("off", 1, 0.7), result("grl", 0, 0.6), result("grl", 1, 0.8)]
    )
    off, grl = rows
    assert (off.arm, off.seeds, grl.arm) == ("off", 2, "grl")
    assert off.mean["seg_ciou"] == pytest.approx(0.6)
    assert off.deviation["seg_ciou"] == pytest.approx(0.1 * 2**0.5)
    # the gain is the same in both seeds, however far they are apart
    assert grl.gain["seg_ciou"] == pytest.approx(0.1)
    assert grl.gain_deviation["seg_ciou"] == pytest.approx(0)
    assert "70.0 ± 14.1 (+10.0 ± 0.0)" in markdown(rows)


def test_summarise_without_a_partner_claims_no_gain() -> None:
    (row,) = summarise([result("confusion", 0, 0.4)])
    assert not row.gain
    assert "(" not in markdown([row]).splitlines()[-1]


def test_summarise_keeps_weights_apart() -> None:
    """Each weight is compared with the one arm that has none; results that name no weight have 0.1."""
    rows = summarise(
        [result("off", 0, 0.5, weight=0.0), result("grl", 0, 0.4), result("grl", 0, 0.8, weight=1.0)]
    )
    assert [(row.arm, row.weight) for row in rows] == [("off", 0.0), ("grl", 0.1), ("grl", 1.0)]
    assert [row.gain.get("seg_ciou") for row in rows[1:]] == pytest.approx([-0.1, 0.3])


def test_figure_shows_each_setting(tmp_path: Path) -> None:
    results = [
        result(arm, seed, 0.5 + 0.1 * seed, setting)
        for arm in ("off", "grl")
        for seed in (0, 1)
        for setting in ("full", "low")
    ]
    draw_figure(summarise([each for each in results if each["setting"] == "full"]), tmp_path / "one.png")
    draw_figure(summarise(results), tmp_path / "two.png")
    one, two = (imread(tmp_path / name) for name in ("one.png", "two.png"))
    assert two.shape[0] > one.shape[0]
    assert one.std() > 0


def test_exactness_is_that_of_greedy_replies(
    nano: tuple[VitronForConditionalGeneration, ConversationEncoder],
) -> None:
    """Where every true token has the highest score a message is exact; one slip makes it wrong."""
    model, encoder = nano
    examples = [draw_example(task, 0, 0) for task in ("tracking", "caption", "chains")]
    (seen,) = teacher_force(model, encoder, examples)
    seen.right[:] = True
    assert exact_rows(seen) == [True, True, True]
    assert named_rows(seen, encoder) == [True, True, True]
    ids = seen.batch.input_ids
    first = int((ids[0] == encoder.token_id("<module>")).nonzero()[0, 0])
    seen.right[0, first + 1] = False
    assert exact_rows(seen) == [False, True, True]
    assert named_rows(seen, encoder) == [False, True, True]
    second = (ids[2] == encoder.token_id("</instruction>")).nonzero()[0, 0]
    seen.right[2, int(second)] = False
    assert exact_rows(seen) == [False, True, False]
    assert named_rows(seen, encoder) == [False, True, True]
    # the user message is not judged
    seen.right[1, 0] = False
    assert exact_rows(seen)[1]


def test_masks_are_grouped_by_call(nano: tuple[VitronForConditionalGeneration, ConversationEncoder]) -> None:
    model, encoder = nano
    examples = [draw_example(task, 0, 1) for task in ("tracking", "referring_segmentation")]
    (seen,) = teacher_force(model, encoder, examples)
    pairs = mask_pairs(seen)
    assert [truth.shape for _, truth in pairs] == [(4, 32, 32), (1, 32, 32)]
    assert all(found.shape == truth.shape for found, truth in pairs)
    assert all(truth.any() for _, truth in pairs)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of Lightning
def test_study_runs_and_resumes(
    nano: tuple[VitronForConditionalGeneration, ConversationEncoder], tmp_path: Path
) -> None:
    logged: list[str] = []
    _, encoder = nano
    # a folder that is prepared is left as it is
    encoder.config.save_pretrained(tmp_path)
    encoder.processor.save_pretrained(tmp_path)
    run_seed(tmp_path, 0, SMALLEST, settings=("low",), arms=("off", "grl"), log=logged.append)
    assert len(logged) == 2
    results = read_results(tmp_path)
    assert {each["arm"] for each in results} == {"off", "grl"}
    for each in results:
        assert set(MEASURES) <= set(each["figures"])
        assert all(0 <= value <= 1 for value in each["figures"].values())
    before = torch.random.get_rng_state()
    run_seed(tmp_path, 0, SMALLEST, settings=("low",), arms=("off", "grl"), log=logged.append)
    assert len(logged) == 2
    assert torch.equal(before, torch.random.get_rng_state())
    assert markdown(summarise(results)).count("\n") == 3
    # further weights are further arms; the one without a discriminator is there
    stronger = replace(SMALLEST, weights=(0.1, 1.0), ramp=False)
    run_seed(tmp_path, 0, stronger, settings=("low",), arms=("off", "grl"), log=logged.append)
    assert len(logged) == 3
    assert sorted(each["weight"] for each in read_results(tmp_path)) == [0.0, 0.1, 1.0]
    run_pairs(tmp_path, 0, SMALLEST, tasks=("caption",), log=logged.append)
    assert [each["without"] for each in read_results(tmp_path, "pairs")] == ["", "caption"]
    assert matrix(read_results(tmp_path, "pairs")).count("\n") == 2


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of Lightning
def test_study_starts_from_a_trained_model(
    nano: tuple[VitronForConditionalGeneration, ConversationEncoder], tmp_path: Path
) -> None:
    model, encoder = nano
    start, out = tmp_path / "start", tmp_path / "study"
    model.save_pretrained(start)
    encoder.processor.save_pretrained(start)
    run_seed(out, 0, SMALLEST, settings=("full",), arms=("off",), start=start)
    run_pairs(out, 0, SMALLEST, tasks=("caption",), start=start)
    assert len(read_results(out)) == 1
    assert not (out / "stage-full-base-0").exists()
    # without none is the arm without a discriminator
    whole = next(each for each in read_results(out, "pairs") if not each["without"])
    assert whole["figures"] == read_results(out)[0]["figures"]


def test_matrix_pairs_seeds() -> None:
    values = {("", 0): 0.5, ("", 1): 0.7, ("tracking", 0): 0.4, ("tracking", 1): 0.5, ("caption", 3): 0.9}
    results = [
        {"without": without, "seed": seed, "figures": dict.fromkeys(MEASURES, value)}
        for (without, seed), value in values.items()
    ]
    *_, row = matrix(results).splitlines()
    # of the captions there is no seed to compare with, and tracking is not judged without its own data
    assert row == "| tracking | 2 | -15.0 ± 7.1 |  | -15.0 ± 7.1 | -15.0 ± 7.1 |"
