# SPDX-License-Identifier: Apache-2.0
"""Conversations: handles that exist, masks on their medium, references that mean one object."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from recipes.vitron_tiny.composing import Drawn
from recipes.vitron_tiny.conversations import draw_conversation, draw_turns
from shapeworld.vocabulary import HELD_OUT
from vitron.data.example import Example
from vitron.protocol import parse, render
from vitron.protocol.contract import Invocation, ReferenceRegion, Turn
from vitron.protocol.messages import media_handles, region_handle

COUNT = 150


@pytest.fixture(scope="module")
def turns() -> list[list[Drawn]]:
    return [draw_turns(1, index) for index in range(COUNT)]


def handles_before(example: Example) -> set[str]:
    """Handles that a call of the last message may name."""
    regions = {region_handle(place) for place in range(len(example.regions))}
    return regions | set(media_handles([each.kind for each in example.media]))


def test_conversations_are_deterministic() -> None:
    first, again = (draw_conversation(3, 7) for _ in range(2))
    assert first.messages == again.messages
    assert all(np.array_equal(*pair) for pair in zip(first.masks.values(), again.masks.values(), strict=True))
    assert draw_conversation(3, 8).messages != first.messages


def test_turns_are_prefixes_of_the_conversation(turns: list[list[Drawn]]) -> None:
    for index, found in enumerate(turns[:20]):
        whole = draw_conversation(1, index)
        assert [each.turn for each in found] == list(range(1, len(found) + 1))
        for each in found:
            assert each.example.messages == whole.messages[: 2 * each.turn]
            assert each.example.task == each.task


def test_lengths_tasks_and_forms_occur(turns: list[list[Drawn]]) -> None:
    lengths = Counter(len(found) for found in turns)
    assert set(lengths) == {2, 3, 4}
    later = [each for found in turns for each in found[1:]]
    assert {each.form for each in later} == {"", "it", "other", "correction", "input"}
    assert sum(bool(each.form) for each in later) > 0.2 * len(later)
    silent = sum(each.task == "no_call" for found in turns for each in found)
    assert 0.08 < silent / sum(lengths.elements()) < 0.3


def test_explicit_turns_do_not_refer_back() -> None:
    drawn = [turn for index in range(30) for turn in draw_turns(1, index, references=0.0)]
    later = [each for each in drawn if each.turn > 1]
    assert len(later) > 30
    assert not {each.form for each in later} & {"it", "other", "correction"}


def test_calls_name_what_exists(turns: list[list[Drawn]]) -> None:
    named = set[str]()
    for drawn in (each for found in turns for each in found):
        known = handles_before(drawn.example)
        for call in drawn.example.messages[-1].calls:
            handles = {str(value) for value in call.args.values()}
            if isinstance(call.region, ReferenceRegion):
                handles.add(call.region.name)
            assert handles <= known, (handles, known)
            named |= {handle.split("_")[0] for handle in handles}
    assert {"mask", "region", "img"} <= named


def test_masks_lie_on_a_medium_that_is_shown(turns: list[list[Drawn]]) -> None:
    for drawn in (each for found in turns for each in found):
        example = drawn.example
        shown = {part.media for each in example.messages for part in each.content if part.type == "media"}
        calls = [call for message in example.messages for call in message.calls]
        assert set(example.masks) == set(example.mask_media)
        for number, mask in example.masks.items():
            medium = example.media[example.mask_media[number]]
            assert example.mask_media[number] in shown
            assert mask.shape == (medium.num_frames, *medium.size)
            assert mask.any()
            assert medium.kind == ("video" if calls[number].module.startswith("video") else "image")
        for region in example.regions:
            assert region.media in shown


def test_results_are_shown_by_the_next_message(turns: list[list[Drawn]]) -> None:
    """Each result of an earlier call is a medium of its kind; masks and the latest are shown."""
    kinds = {"image_segmentation": "masks", "video_segmentation": "masks", "image_to_video": "video"}
    kinds |= {"text_to_video": "video", "video_editing": "video"}
    for found in turns:
        for before, after in pairwise(found):
            calls, start = before.example.messages[-1].calls, len(before.example.media)
            media = after.example.media[start:][: len(calls)]
            assert [each.kind for each in media] == [kinds.get(call.module, "image") for call in calls]
            shown = {part.media for part in after.example.messages[-2].content if part.type == "media"}
            masks = [start + place for place, each in enumerate(media) if each.kind == "masks"]
            others = [start + place for place, each in enumerate(media) if each.kind != "masks"]
            assert {*masks, *others[-1:]} <= shown


def test_replies_parse_back(turns: list[list[Drawn]]) -> None:
    def plain(calls: tuple[Invocation, ...]) -> tuple[Invocation, ...]:
        return tuple(call.model_copy(update={"source": None}) for call in calls)

    for message in (found[-1].example.messages[-1] for found in turns):
        turn = parse(render(Turn(text=message.text, invocations=message.calls)))
        assert not turn.issues
        assert (turn.text, plain(turn.invocations)) == (message.text, message.calls)


def test_edits_of_a_mask_use_its_mask(turns: list[list[Drawn]]) -> None:
    """Behind "segment: the star", removing it works on the same pixels."""
    seen = 0
    for drawn in (each for found in turns for each in found if each.form == "it"):
        example, calls = drawn.example, drawn.example.messages[-1].calls
        if not calls or calls[0].module != "image_editing" or calls[0].region is None:
            continue
        region = calls[0].region
        assert isinstance(region, ReferenceRegion)
        if region.name.startswith("mask"):
            place = media_handles([each.kind for each in example.media]).index(region.name)
            assert np.array_equal(example.masks[max(example.masks)], example.media[place].data.any(axis=0))
            seen += 1
    assert seen > 3


@pytest.mark.parametrize("split", ["train", "test"])
def test_held_out_pairs_stay_unseen(split: str) -> None:
    pairs = {" ".join(pair) for pair in HELD_OUT}
    for index in range(60):
        example = draw_conversation(2, index, split=split)  # type: ignore[arg-type]
        replies = (render(Turn(text=each.text, invocations=each.calls)) for each in example.messages[1::2])
        text = " ".join(replies)
        assert not [pair for pair in pairs if pair in text], text


def test_media_are_bounded(turns: list[list[Drawn]]) -> None:
    for found in turns:
        example = found[-1].example
        shown = [part.media for each in example.messages for part in each.content if part.type == "media"]
        assert len(shown) == len(set(shown))
        assert sum(example.media[place].kind != "masks" for place in shown) <= 4
        assert all(each.num_frames <= 4 for each in example.media)


def test_a_share_of_the_turns_is_plain() -> None:
    last = [draw_turns(4, index, references=0.0, plain=1.0)[-1] for index in range(20)]
    asked = [each.example.messages[-2].text for each in last]
    assert all(text.split()[0] in {"hello", "segment", "remove", "make", "track"} for text in asked)
    assert len({text.split()[0] for text in asked}) >= 4
