# SPDX-License-Identifier: Apache-2.0
"""Words of image tokens, and the loss that draws the tokens to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from recipes.vitron_tiny.building import make_config, make_model, make_processor, make_tokenizer
from recipes.vitron_tiny.seeing import (
    PLACES,
    UNKNOWN,
    WORDS,
    LabelledBatch,
    LabelledData,
    LabelledExample,
    SeeingModule,
    token_words,
)
from recipes.vitron_tiny.stages import stage_of
from recipes.vitron_tiny.tasks import TASKS, corpus, draw_task
from vitron.model import ConversationEncoder
from vitron.specialists.words import COLOURS

SIDE = 4


def drawn(task: str, count: int = 8) -> list:
    return [draw_task(task, 11, index) for index in range(count)]


@pytest.mark.parametrize("task", ["caption", "tracking", "video_editing"])
def test_words_are_those_of_the_objects(task: str) -> None:
    seen = set[str]()
    for each in drawn(task):
        (view,) = each.views
        found = token_words(view, SIDE)
        assert found.shape == (view.media.num_frames, SIDE * SIDE, len(WORDS))
        named = {word for word in WORDS if (found[0, :, WORDS.index(word)] == 1).any()} - set(PLACES)
        things = view.scene.things if view.video is None else view.video.scenes[0].things
        told = {word for thing in things for word in (thing.colour, thing.shape, thing.material)}
        assert named <= told
        seen |= named
    assert len(seen & set(COLOURS)) > 3  # of small objects that lie across tokens nothing is said


def test_a_word_lies_where_its_object_is() -> None:
    each = next(one for one in drawn("caption", 40) if len(one.views[0].scene.things) == 1)
    (view,) = each.views
    (thing,) = view.scene.things
    found = token_words(view, SIDE)[0].reshape(SIDE, SIDE, -1)
    rows, columns = np.nonzero(found[..., WORDS.index(thing.shape)] == 1)
    assert abs((rows.mean() + 0.5) / SIDE - thing.y) < 0.2
    assert abs((columns.mean() + 0.5) / SIDE - thing.x) < 0.2
    assert found[0, 0, WORDS.index("left")] == found[0, 0, WORDS.index("top")] == 1
    assert found[0, 0, WORDS.index("right")] == found[0, 0, WORDS.index("bottom")] == 0
    # the colours of a change of style have no names, places have
    strange = token_words(replace(view, natural=False), SIDE)
    assert (strange[..., : -len(PLACES)] == UNKNOWN).all()
    assert (strange[..., -len(PLACES) :] != UNKNOWN).all()


@pytest.fixture(scope="module")
def encoder() -> ConversationEncoder:
    tokenizer = make_tokenizer(corpus(5, 10 * len(TASKS)), size=400)
    return ConversationEncoder(make_processor(tokenizer), make_config(tokenizer, "nano"))


def test_labels_follow_the_shown_frames(encoder: ConversationEncoder) -> None:
    for task in ("caption", "tracking", "text_to_image", "chains"):
        for each in drawn(task, 4):
            encoded = LabelledExample.of(encoder.encode(each.example), each, SIDE)
            assert len(encoded.words) == encoded.num_frames


def test_the_loss_draws_tokens_to_their_words(encoder: ConversationEncoder) -> None:
    examples = [
        LabelledExample.of(encoder.encode(each.example), each, SIDE)
        for task in ("caption", "text_to_image", "tracking")
        for each in drawn(task, 4)
    ]
    data = LabelledData(encoder, examples, batch_size=12, steps=1, parts=2)
    model = make_model(encoder.config, seed=0)
    module = SeeingModule(model, stage_of("polish", 1), 0, encoder=encoder, weight=1.0)
    projector = model.backbone.base_model.multi_modal_projector
    optimiser = torch.optim.Adam(projector.parameters(), lr=1e-2)
    batch = data.collate(examples)
    assert isinstance(batch, LabelledBatch)
    assert len(batch.words) == sum(each.num_frames for each in examples)
    losses = list[float]()
    for _ in range(30):
        model(**batch.inputs())
        (loss,) = module.further_losses(batch).values()
        optimiser.zero_grad()
        loss.backward()
        assert model.get_input_embeddings().weight.grad is None  # words stay where the text has them
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert not module.further_losses(batch)  # nothing was read since
