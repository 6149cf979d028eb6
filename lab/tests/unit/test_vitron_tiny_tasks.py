# SPDX-License-Identifier: Apache-2.0
"""Examples: deterministic, true, readable, and such that the toy specialists run their calls."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from recipes.vitron_tiny import images
from recipes.vitron_tiny.questions import ANSWERS
from recipes.vitron_tiny.tasks import SPLITS, TASKS, assistant_text, corpus, draw_example, draw_task
from shapeworld import Scene
from shapeworld.referring import Kind, Reference, refer, resolve
from shapeworld.vocabulary import HELD_OUT
from vitron.data.example import Example
from vitron.demo.painters import toy_registry
from vitron.model import VitronConfig
from vitron.protocol import parse
from vitron.protocol.contract import ReferenceRegion
from vitron.protocol.regions.text import parse_region
from vitron.session import CallResult, Conversation

CALLING = {
    "referring_segmentation": "image_segmentation",
    "sketch_segmentation": "image_segmentation",
    "editing": "image_editing",
    "restoration": "restoration",
    "text_to_image": "text_to_image",
    "text_to_video": "text_to_video",
    "image_to_video": "image_to_video",
    "tracking": "video_segmentation",
    "video_editing": "video_editing",
}
SILENT = ("caption", "grounding", "question", "region_caption", "video_question", "span_grounding", "no_call")


def digest(example: Example) -> str:
    parts = [example.messages[0].model_dump_json().encode(), assistant_text(example).encode()]
    parts += [each.data.tobytes() for each in example.media]
    parts += [each.mask.tobytes() for each in example.regions]
    parts += [example.masks[number].tobytes() for number in sorted(example.masks)]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def test_tasks_that_call_and_that_do_not() -> None:
    assert set(CALLING) | set(SILENT) | {"chains"} == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_draw_example_deterministic(task: str) -> None:
    first, again = draw_example(task, 3, 5), draw_example(task, 3, 5)
    assert digest(first) == digest(again)
    others = {digest(draw_example(task, seed, index)) for seed, index in ((3, 6), (3, 7), (4, 5))}
    assert digest(first) not in others


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_replies_parse_back(task: str, split: str) -> None:
    for index in range(12):
        phrasing = ("train", "held_out")[index % 2]
        example = draw_example(task, 0, index, split=split, phrasing=phrasing)  # type: ignore[arg-type]
        reply = example.messages[-1]
        turn = parse(assistant_text(example))
        assert turn.text == reply.text
        assert not turn.issues
        assert tuple(call.model_copy(update={"source": None}) for call in turn.invocations) == reply.calls
        assert len(reply.text) <= 100
        modules = [call.module for call in reply.calls]
        if task in CALLING:
            assert modules == [CALLING[task]]
        else:
            assert len(modules) == (2 if task == "chains" else 0)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("side", [32, 64])
def test_masks_and_regions_fit(task: str, side: int) -> None:
    for index in range(10):
        example = draw_example(task, 1, index, side=side)
        assert set(example.masks) == set(example.mask_media)
        assert all(number < len(example.messages[-1].calls) for number in example.masks)
        for number, mask in example.masks.items():
            medium = example.media[example.mask_media[number]]
            assert mask.dtype == np.bool_
            assert mask.shape == (medium.num_frames, side, side)
            assert mask.any()
            # of the others the built-in head makes no masks
            assert example.messages[-1].calls[number].module in VitronConfig().mask_modules
        for region in example.regions:
            assert region.mask.shape == (side, side)
            assert region.mask.any()


def pixels_of(example: Example) -> np.ndarray:
    """Colours of the image under the first true mask."""
    return example.media[0].frames[example.masks[0]]


def test_referring_phrases_mean_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Scene, Reference | None]] = []

    def spy(scene: Scene, rng: np.random.Generator, *, kind: Kind) -> Reference | None:
        drawn.append((scene, refer(scene, rng, kind=kind)))
        return drawn[-1][1]

    monkeypatch.setattr(images, "refer", spy)
    groups = set[str]()
    for index in range(40):
        example = draw_example("referring_segmentation", 0, index)
        groups.add(example.group)
        if example.group == "plural":
            continue
        scene, reference = drawn[-1]
        assert reference is not None
        assert resolve(reference.expression, scene) == (reference.target,)
        (instruction,) = example.messages[-1].calls[0].instruction
        assert (instruction.verb, instruction.text) == ("segment", reference.expression.phrase())
        # the true mask lies around the object that is meant
        rows, columns = np.nonzero(example.masks[0][0])
        thing, reach = scene.things[reference.target], 1.05 * scene.things[reference.target].radius + 1 / 64
        assert np.abs((columns + 0.5) / 64 - thing.x).max() <= reach
        assert np.abs((rows + 0.5) / 64 - thing.y).max() <= reach
    assert groups == {"attribute", "position", "relation", "plural"}


def test_plurals_mean_all_objects_of_a_kind() -> None:
    """The mask of "all things" in a flat image is all that is not background."""
    checked = 0
    for index in range(300):
        drawn = draw_task("referring_segmentation", 5, index)
        example = drawn.example
        if example.group != "plural":
            continue
        (instruction,) = example.messages[-1].calls[0].instruction
        assert instruction.text.startswith("all ")
        image, mask = example.media[0].frames[0], example.masks[0][0]
        objects = (image != image[0, 0]).any(axis=-1)
        if drawn.world == "flat":
            assert not (mask & ~objects).any()
            if instruction.text == "all things":
                assert np.array_equal(mask, objects)
                checked += 1
    assert checked


def test_masks_lie_on_the_object_that_is_named() -> None:
    """A recoloured red object is red under its mask."""
    seen = 0
    for index in range(300):
        drawn = draw_task("editing", 2, index)
        text = drawn.example.messages[-1].calls[0].instruction[0].text
        named = text.split(" to ")[0].split(" with ")[0]
        if drawn.world != "flat" or drawn.example.group in ("add", "restyle") or "red " not in named:
            continue
        red, green, blue = pixels_of(drawn.example).mean(axis=0)
        assert red > 150
        assert max(green, blue) < 100
        seen += 1
    assert seen > 3


def run(example: Example) -> list[CallResult]:
    """Run the calls of the last message on the media of the conversation."""
    conversation = Conversation(specialists=toy_registry())
    for medium in example.media:
        conversation.add_media(medium)
    return conversation.run_calls(parse(assistant_text(example)))


@pytest.mark.parametrize(
    "task", ["editing", "image_to_video", "video_editing", "text_to_image", "text_to_video"]
)
def test_toys_run_what_is_called(task: str) -> None:
    for index in range(36):
        drawn = draw_task(task, 0, index, split="test")
        example = drawn.example
        if drawn.world == "drawn" or example.regions:
            continue
        (result,) = run(example)
        assert result.error is None, (example.messages[0].text, result.error)
        assert result.artefact is not None
        if example.media and task != "image_to_video":
            before, after = example.media[0].data, result.artefact.data
            assert before.shape == after.shape
            assert (before != after).any()
            if task == "editing" and example.group in ("recolour", "add"):
                changed = (before != after).any(axis=-1)
                truth = example.masks[0][0]
                assert (changed & truth).sum() / (changed | truth).sum() > 0.6


def test_toys_run_chains() -> None:
    for index in range(30):
        drawn = draw_task("chains", 0, index)
        if drawn.world != "drawn":
            results = run(drawn.example)
            assert [each.error for each in results] == [None, None], drawn.example.messages[0].text


def test_answers_are_equally_frequent() -> None:
    """The commonest answer of a kind of question is at most little more frequent than the others."""
    found = dict[str, list[str]]()
    for index in range(400):
        example = draw_example("question", 3, index)
        found.setdefault(example.group, []).append(example.messages[-1].text)
    assert set(found) == set(ANSWERS)
    for kind, answers in found.items():
        commonest = max(answers.count(answer) for answer in answers) / len(answers)
        assert commonest < 1 / len(ANSWERS[kind]) + 0.25, (kind, commonest)


def test_regions_are_named_by_their_handle() -> None:
    for index in range(10):
        (call,) = draw_example("sketch_segmentation", 0, index).messages[-1].calls
        assert call.instruction[0].text == "this"
        assert call.region == ReferenceRegion(name="region_1")


def test_captions_name_colours_that_are_there() -> None:
    for index in range(20):
        example = draw_example("region_caption", 0, index)
        words = example.messages[-1].text.rstrip(".").split()
        assert words[0] in ("A", "An")
        assert words[-1] in ("circle", "square", "triangle", "star", "cross")


def test_grounding_gives_one_box() -> None:
    for index in range(20):
        text = draw_example("grounding", 0, index).messages[-1].text
        region, frames = parse_region(text[text.index("[") :])
        assert region is not None
        assert region.kind == "box"
        assert frames is None


def test_span_replies_lie_in_the_video() -> None:
    groups = set[str]()
    for index in range(30):
        example = draw_example("span_grounding", 0, index)
        numbers = [int(word) for word in example.messages[-1].text.rstrip(".").split() if word.isdigit()]
        groups.add(example.group)
        assert numbers == sorted(numbers)
        assert 0 <= numbers[0] <= numbers[-1] <= 3
    assert groups == {"event", "span"}


def test_no_call_quotes_tags_raw() -> None:
    texts = [draw_example("no_call", 0, index).messages[0].text for index in range(60)]
    assert any("<module>" in text for text in texts)
    assert any("<" not in text for text in texts)


def test_splits_hold_held_out_pairs_apart() -> None:
    pairs = {" ".join(pair) for pair in HELD_OUT}
    for task in ("caption", "text_to_image", "editing", "chains", "region_caption"):
        for index in range(25):
            for split in ("train", "test"):
                example = draw_example(task, 0, index, split=split)  # type: ignore[arg-type]
                text = f"{example.messages[0].text} {assistant_text(example)}"
                assert not [pair for pair in pairs if pair in text], text
    novel = [assistant_text(draw_example("caption", 0, index, split="novel")) for index in range(10)]
    assert all(any(pair in reply for pair in pairs) for reply in novel)


def test_held_out_requests_are_worded_otherwise() -> None:
    def words(phrasing: str) -> set[str]:
        found = (draw_example("restoration", 0, i, phrasing=phrasing) for i in range(60))  # type: ignore[arg-type]
        return {example.messages[0].text.lower().replace("please", "").strip(" .") for example in found}

    assert not words("train") & words("held_out")


def test_questions_are_reworded_in_training_alone() -> None:
    asked = [draw_example("question", 2, i).messages[0].text for i in range(80)]
    held_out = [draw_example("question", 2, i, phrasing="held_out").messages[0].text for i in range(80)]
    bare = {text.lower().strip("?.") for text in asked}
    assert not bare & {text.lower().strip("?.") for text in held_out}
    assert not [text for text in bare if "{" in text or "  " in text]

    kinds = [text for text in bare if text.startswith(("count ", "number of", "do you see", "tell me"))]
    assert len(kinds) > 5


def test_corpus_holds_both_sides() -> None:
    texts = list(corpus(0, 2 * len(TASKS)))
    assert len(texts) == 4 * len(TASKS)
    assert any("<instruction>" in text for text in texts)
    vocabulary = {word for text in corpus(0, 10 * len(TASKS)) for word in text.split()}
    assert len(vocabulary) < 1500


@pytest.mark.parametrize(
    ("task", "options"), [("juggling", {}), ("caption", {"split": "val"}), ("caption", {"phrasing": "odd"})]
)
def test_draw_example_refuses_unknown_words(task: str, options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        draw_example(task, 0, 0, **options)  # type: ignore[arg-type]
