# SPDX-License-Identifier: Apache-2.0
"""The rules of a conversation with the shipped model, whatever it answers."""

import numpy as np
import pytest
from vitron import Artefact, Vitron
from vitron.data import Example
from vitron.demo.painters import toy_registry
from vitron.demo.scripted import SCENE, draw
from vitron.errors import ContextLengthError
from vitron.protocol.contract import BoxRegion
from vitron.protocol.sampling import SamplingParams
from vitron.session import DoneEvent, IssueEvent

SHORT = SamplingParams(max_new_tokens=3)
BOX = BoxRegion(x0=0.1, y0=0.1, x1=0.5, y1=0.5)


@pytest.fixture(scope="module")
def vitron():
    return Vitron.from_pretrained("vitron-tiny", device="cpu")


def scene():
    return Artefact("image", draw(*SCENE))


def answer(conversation, text, sampling=SHORT, **options):
    """Send a message and return the issues about the length, and the last event."""
    conversation.add_user_message(text, **options)
    *events, done = conversation.generate(sampling)
    assert isinstance(done, DoneEvent)
    issues = [event.issue for event in events if isinstance(event, IssueEvent)]
    return [issue for issue in issues if issue.code == "shortened"], done


def test_a_message_beyond_the_context_is_refused(vitron):
    conversation = vitron.conversation(toy_registry())
    conversation.add_user_message("the red circle " * 2000)
    with pytest.raises(
        ContextLengthError, match=rf"^the message has \d+ tokens, .* {vitron.context_length}: "
    ):
        next(conversation.generate(SHORT))
    assert [message.role for message in conversation.messages] == ["user"]


def test_a_long_conversation_keeps_its_end(vitron):
    conversation = vitron.conversation(toy_registry())
    told = []
    for turn in range(6):
        media = [scene()] if turn in (0, 2) else []
        regions = [BOX] if turn == 4 else []
        issues, done = answer(conversation, "how many circles are there? " * 70, media=media, regions=regions)
        told += issues
        assert 0 < done.prompt_tokens < vitron.context_length
        assert done.prompt_tokens <= vitron.context_length - SHORT.max_new_tokens
    assert told
    assert len([message for message in conversation.messages if message.role == "user"]) == 6
    assert list(conversation.media)[:2] == ["img_1", "img_2"]


def test_the_tokens_are_those_that_the_model_reads(vitron):
    conversation = vitron.conversation(toy_registry())
    frames = np.stack([draw(*SCENE)] * 5)
    conversation.add_user_message("look", media=[scene()], regions=[BOX])
    one = vitron.count_tokens(conversation.messages, [scene()])
    media = [scene(), Artefact("video", frames)]
    _, done = answer(conversation, "track the circle", media=media[1:])
    example = Example(
        task="",
        messages=tuple(conversation.messages[:2]),
        media=tuple(media),
        regions=tuple(conversation._media.placed),
    )
    read = vitron.encoder([example]).input_ids.shape[1]
    assert done.prompt_tokens == read > one
