# SPDX-License-Identifier: Apache-2.0
"""Conversations longer than the context, and messages with malformed calls."""

import numpy as np
import pytest
from vitron import Artefact, Conversation, SpecialistRegistry
from vitron.demo.painters import toy_registry
from vitron.errors import ContextLengthError
from vitron.protocol.contract import BoxRegion
from vitron.protocol.messages import text_message
from vitron.protocol.sampling import SamplingParams
from vitron.session import CallEvent, DoneEvent, IssueEvent, MessageEvent, ResultEvent, RetryEvent, TextEvent

SEGMENT = "I mark it. <module>B</module><instruction>segment: the circle</instruction>"
DRAW = "<module>A</module><instruction>draw: a red circle</instruction>"
BROKEN = "Here you are. <module>A</module><instruction>draw: a red circle"
BOX = BoxRegion(x0=0, y0=0, x1=0.5, y1=0.5)


def image(value=0):
    return Artefact("image", np.full((8, 8, 3), value, dtype=np.uint8))


def ask(conversation, text, sampling=None, **options):
    conversation.add_user_message(text, **options)
    return list(conversation.generate(sampling))


def words(count, word="word"):
    return " ".join([word] * count)


# -- longer than the context


def test_the_oldest_turns_are_left_out_and_the_user_is_told(recorder):
    model = recorder(*["fine"] * 4, context_length=40)
    conversation = Conversation(model, specialists=SpecialistRegistry())
    conversation.messages.append(text_message("system", "be brief"))
    few = SamplingParams(max_new_tokens=5)
    for name in "abc":
        first, *_ = ask(conversation, words(10, name), few)
        assert isinstance(first, TextEvent)
    first, *_, done = ask(conversation, words(10, "d"), few)
    assert first == IssueEvent(done.issues[0])
    assert done.issues[0].code == "shortened"
    assert done.issues[0].message == (
        "the oldest 1 turn is left out: the conversation has 45 tokens, and the context of the model 40"
    )
    # whole turns go, the system message and the last message of the user stay
    assert model.shown[-1] == [
        ["be brief"],
        [words(10, "b")],
        ["fine"],
        [words(10, "c")],
        ["fine"],
        [words(10, "d")],
    ]
    # the conversation itself keeps all
    assert len(conversation.messages) == 9
    model.replies = ["fine"]
    *_, done = ask(conversation, words(30, "e"), few)
    assert "the oldest 4 turns are left out" in done.issues[0].message
    assert model.shown[-1] == [["be brief"], [words(30, "e")]]


def test_a_message_that_is_too_long_is_refused_with_both_numbers(recorder):
    model = recorder("fine", "fine", context_length=40)
    conversation = Conversation(model, specialists=SpecialistRegistry())
    ask(conversation, "hello")
    fork = conversation.fork()
    fork.add_user_message(words(40))
    with pytest.raises(
        ContextLengthError, match=r"^the message has 40 tokens, and the context of the model 40:"
    ):
        next(fork.generate())
    assert len(model.shown) == 1
    assert [len(conversation.messages), len(fork.messages)] == [2, 3]
    # it does not stand in the way of the next
    *_, done = ask(fork, "hello again")
    assert done.turn.text == "fine"
    assert model.shown[-1] == [["hello again"]]


def test_a_message_ends_where_the_context_does(recorder):
    model = recorder("fine", "fine", context_length=40)
    conversation = Conversation(model, specialists=SpecialistRegistry())
    ask(conversation, words(33), SamplingParams(max_new_tokens=9))
    assert model.sampled[-1].max_new_tokens == 7
    model.context_length = None
    ask(conversation, words(1000))
    assert model.sampled[-1] == SamplingParams()


def test_media_of_turns_that_are_left_out(recorder):
    """The latest image, and that of a region that stays, are shown again; others keep their handles."""
    named = "<module>R</module><instruction>upscale: it</instruction><instruction>input: img_1</instruction>"
    model = recorder("fine", "fine", "fine", named, context_length=60)
    conversation = Conversation(model, specialists=toy_registry())
    few = SamplingParams(max_new_tokens=1)
    ask(conversation, words(20, "a"), few, media=[image(1)])
    ask(conversation, words(10, "b"), few, media=[image(2), image(3)])
    ask(conversation, "c", few, regions=[BOX])
    *_, result, done = ask(conversation, words(36, "d"), few)
    assert model.shown[-1] == [[2, 0, "c"], ["fine"], [words(36, "d")]]
    assert "the oldest 2 turns are left out" in done.issues[0].message
    assert (result.result.call.input, result.result.error) == ("img_1", None)
    assert (result.result.artefact.data == 1).all()


def test_videos_count_with_all_their_frames(recorder):
    class Frames(recorder):
        def count_tokens(self, messages, media):
            shown = {part.media for each in messages for part in each.content if part.type == "media"}
            return sum(media[position].num_frames for position in shown)

    model = Frames("fine", "fine", context_length=8)
    conversation = Conversation(model, specialists=SpecialistRegistry())
    ask(conversation, "look", media=[image()])
    video = Artefact("video", np.zeros((8, 8, 8, 3), dtype=np.uint8))
    conversation.add_user_message("look", media=[video])
    with pytest.raises(ContextLengthError, match="has 8 tokens"):
        next(conversation.generate())


# -- malformed calls


def test_a_malformed_call_is_asked_for_again(recorder):
    model = recorder("hello", BROKEN, "Here: " + DRAW)
    conversation = Conversation(model, specialists=toy_registry())
    ask(conversation, "hello")
    events = ask(conversation, "draw a red circle", SamplingParams(seed=3, constrained=False))
    kinds = [type(event) for event in events]
    assert kinds == [
        TextEvent, IssueEvent, RetryEvent, TextEvent, CallEvent, MessageEvent, ResultEvent, DoneEvent,
    ]  # fmt: skip
    assert events[1].issue.code == "unclosed_tag"
    assert events[-2].result.call.output == "img_1"
    done = events[-1]
    assert [issue.code for issue in done.issues] == ["unclosed_tag"]
    assert (done.turn.text.strip(), done.turn.issues) == ("Here:", ())
    # the same conversation, with the grammar and the next seed; greedy sampling would repeat the message
    assert model.shown[-2] == model.shown[-1] == [["hello"], ["hello"], ["draw a red circle"]]
    assert model.sampled[-1] == SamplingParams(seed=4, constrained=True, temperature=0.5)
    # the broken message is not kept
    assert [message.text.strip() for message in conversation.messages[1::2]] == ["hello", "Here:"]
    assert list(conversation.media) == ["img_1"]


def test_a_second_malformed_call_is_shown(recorder):
    model = recorder(BROKEN, "Well. <module>Z</module><instruction>x</instruction>" + DRAW, "fine")
    conversation = Conversation(model, specialists=toy_registry())
    events = ask(conversation, "draw a red circle")
    assert [event.issue.code for event in events if isinstance(event, IssueEvent)] == [
        "unclosed_tag",
        "unknown_module",
    ]
    done = events[-1]
    assert [issue.code for issue in done.issues] == ["unclosed_tag", "unknown_module"]
    assert done.turn.text.strip() == "Well."
    assert len(model.shown) == 2
    # what can run does
    assert list(conversation.media) == ["img_1"]
    assert conversation.messages[-1].text.strip() == "Well."


def test_a_first_attempt_ends_at_its_issue(recorder):
    read = []

    class Reader(recorder):
        def stream(self, *args):
            for chunk in super().stream(*args):
                read.append(chunk.text)
                yield chunk

    model = Reader("<module>Z</module>" + words(50), "fine", chunk=9)
    conversation = Conversation(model, specialists=SpecialistRegistry())
    *_, done = ask(conversation, "hello")
    assert done.turn.text == "fine"
    assert read == ["<module>Z", "</module>", "fine"]
    assert done.completion_tokens == len(read)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_calls_are_announced_when_the_message_is_complete(recorder, chunk):
    """What a first attempt called must not reach a client that cannot take it back."""
    model = recorder(SEGMENT + BROKEN, SEGMENT, chunk=chunk)
    conversation = Conversation(model, specialists=toy_registry())
    events = ask(conversation, "mark it", media=[image()])
    assert sum(isinstance(event, CallEvent) for event in events) == 1
    before, after = (events[: events.index(RetryEvent())], events[events.index(RetryEvent()) :])
    said = ["".join(each.text for each in part if isinstance(each, TextEvent)) for part in (before, after)]
    assert said[1].strip() == "I mark it."
    assert said[0].startswith("I mark it.")
    assert not any("<" in each for each in said)


def test_a_check_holds_for_the_second_attempt(recorder):
    def check():
        if len(model.shown) == 2:
            raise TimeoutError("too slow")

    model = recorder(BROKEN, "fine")
    conversation = Conversation(model, specialists=toy_registry())
    conversation.add_user_message("hello")
    with pytest.raises(TimeoutError, match="too slow"):
        list(conversation.generate(check=check))
    assert [each.role for each in conversation.messages] == ["user"]
