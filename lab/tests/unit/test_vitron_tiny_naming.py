# SPDX-License-Identifier: Apache-2.0
"""Named things: their names reach the calls as the user wrote them."""

from __future__ import annotations

import re

import pytest
from photoworld.manifest import Manifest
from recipes.vitron_tiny.naming import draw_copied, draw_named, names
from shapeworld.words import Phrasing
from vitron.demo.painters.words import SHAPES
from vitron.specialists.words import COLOURS

COUNT = 60


def test_names_are_disjoint_and_unknown_to_both_worlds() -> None:
    train, held_out = set(names()), set(names("held_out"))
    assert len(train) > 500
    assert len(held_out) > 50
    assert not train & held_out
    words = {word for name in train | held_out for word in name.split()}
    assert not words & {*COLOURS, *SHAPES}
    judged = {
        each.name for each in Manifest.read().pictures if each.kind == "cutout" and each.split == "test"
    }
    assert judged
    assert not (train | held_out) & judged


@pytest.mark.parametrize("phrasing", ["train", "held_out"])
def test_names_stand_in_message_and_call(phrasing: Phrasing) -> None:
    known, invented = names(phrasing), 0
    for index in range(COUNT):
        example = draw_named(5, index, phrasing=phrasing).example
        said = " ".join(
            each.text for message in example.messages for call in message.calls for each in call.instruction
        )
        asked = " ".join(message.text for message in example.messages if message.role == "user")
        assert not set(re.findall(r"\w+", said)) & set(SHAPES)
        assert not example.masks  # the image shows another thing
        found = [name for name in known if re.search(rf"\b{name}\b", said)]
        if not found:
            invented += 1
            continue
        name = max(found, key=len)
        assert name in asked
        assert not re.search(rf"\ba (?=[aeiou])(?={name})|\ban (?=[^aeiou])(?={name})", f"{said} {asked}")
    assert (invented > 0) is (phrasing == "train")  # for evaluation, no word is invented


@pytest.mark.parametrize("phrasing", ["train", "held_out"])
def test_copied_requests_are_text_whose_things_stand_in_the_call(phrasing: Phrasing) -> None:
    modules = set[str]()
    for index in range(COUNT):
        example = draw_copied(5, index, phrasing=phrasing).example
        assert not example.media
        (call,) = example.messages[-1].calls
        said, asked = call.instruction[0].text.split(" moving ")[0], example.messages[0].text.lower()
        assert re.sub(r"\W", "", said) in re.sub(r"\W", "", asked)
        modules.add(call.module)
    assert modules == {"text_to_image", "text_to_video"}
    assert draw_copied(5, 1).example.messages == draw_copied(5, 1).example.messages


def test_same_arguments_same_example() -> None:
    first, again, other = draw_named(5, 1), draw_named(5, 1), draw_named(5, 2)
    assert first.example.messages == again.example.messages
    assert first.example.messages != other.example.messages
