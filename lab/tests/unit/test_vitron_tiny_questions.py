# SPDX-License-Identifier: Apache-2.0
"""Questions: numbers that have no word are not asked for, and what was asked about keeps its words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from recipes.vitron_tiny import questions
from recipes.vitron_tiny.composing import Composer
from recipes.vitron_tiny.images import any_view
from recipes.vitron_tiny.questions import question, video_question
from recipes.vitron_tiny.scenes import FRAMES, Draw
from recipes.vitron_tiny.videos import any_video
from shapeworld import scene_rng


def draw_of(index: int) -> Draw:
    rng = scene_rng(11, index, 990, 0)
    return Draw(seed=11, number=index, rng=rng, split="train", phrasing="train", side=64)


@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_only_numbers_that_have_a_word_are_asked_for(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    shown = any_video(draw_of(0))
    assert shown is not None
    still = SimpleNamespace(present=np.ones((FRAMES, count), bool), events=(), things=())
    steps = [video_question(draw_of(index), replace(shown, video=still), Composer()) for index in range(60)]
    counted = {step.reply for step in steps if step is not None and step.group == "count"}
    assert counted == ({"one"} if count == 1 else set())


def test_what_a_question_was_about_keeps_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "worded", lambda *_, **slots: slots["subject"])
    views = [(draw := draw_of(index), any_view(draw)) for index in range(80)]
    steps = [question(draw, shown, Composer()) for draw, shown in views if shown is not None]
    found = [step for step in steps if step is not None and step.subject is not None]
    assert len(found) > 10
    assert all(
        step.subject.phrase.split()[1:] == step.text.split()[-len(step.subject.phrase.split()) + 1 :]
        for step in found
    )
