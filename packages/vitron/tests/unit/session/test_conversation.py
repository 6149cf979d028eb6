# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from vitron import Artefact, Conversation, SpecialistRegistry, Turn, parse
from vitron.demo.painters import ToyPainter, ToySegmenter, toy_registry
from vitron.demo.painters.find import things_in
from vitron.demo.scripted import SCENE, draw
from vitron.errors import PlanError, SpecialistError
from vitron.protocol.contract import (
    BoxRegion,
    Instruction,
    Invocation,
    PointsRegion,
    ReferenceRegion,
)
from vitron.protocol.messages import MessageChunk
from vitron.protocol.regions import mask_to_region, rasterise
from vitron.protocol.sampling import SamplingParams
from vitron.session import MessageEvent, ResultEvent


def call(module, *said, region=None):
    place = "" if region is None else f"<region>{region}</region>"
    blocks = "".join(f"<instruction>{text}</instruction>" for text in said)
    return f"<module>{module}</module>{blocks}{place}"


@pytest.fixture
def conversation():
    return Conversation(specialists=toy_registry())


DRAW = call("A", "draw: a red circle at the left and a blue star at the right")


def test_a_chain_runs_from_words_to_a_clip(conversation):
    reply = (
        DRAW
        + call("B", "segment: the circle")
        + call("C", "recolour: it to green", region="mask_1")
        + call("G", "animate: the star moves down", "length: 5")
        + call("E", "track: the star")
    )
    made = conversation.run_calls(parse(reply))
    assert [each.error for each in made] == [None] * 5
    assert [each.call.output for each in made] == ["img_1", "mask_1", "img_2", "vid_1", "mask_2"]
    assert [each.call.input for each in made] == [None, "img_1", "img_1", "img_2", "vid_1"]
    assert [each.call.after for each in made] == [(), (0,), (0, 1), (2,), (3,)]
    assert [each.artefact.data.shape for each in made[3:]] == [(5, 64, 64, 3), (1, 5, 64, 64)]
    assert [thing.colour for thing in things_in(conversation.media["img_2"].data)] == ["green", "blue"]
    assert made[1].note == "red circle"


def test_handles_are_usable_in_later_turns(conversation):
    conversation.run_calls(parse(DRAW))
    conversation.run_calls(parse(call("B", "segment: the star")))
    conversation.run_calls(parse(call("C", "remove: the circle")))
    (made,) = conversation.run_calls(
        parse(call("C", "recolour: it to pink", "input: img_1", region="mask_1"))
    )
    assert (made.call.input, made.call.output) == ("img_1", "img_3")
    assert [thing.colour for thing in things_in(made.artefact.data)] == ["red", "pink"]
    assert list(conversation.media) == ["img_1", "mask_1", "img_2", "img_3"]


def test_a_plan_runs_nothing(conversation):
    steps = conversation.plan(
        parse(DRAW + call("C", "remove: it", region="mask_7") + call("D", "draw: a star"))
    )
    assert [step.specialists for step in steps] == [("toy-painter",), ("toy-painter",), ("toy-animator",)]
    assert [step.problem for step in steps] == [None, "there is no mask_7 in this conversation", None]
    assert conversation.media == {}
    assert conversation.specialists.loaded == {}


def test_a_failure_stops_what_needs_it_and_nothing_else(conversation):
    reply = call("A", "draw: a dog") + call("B", "segment: red") + DRAW + call("B", "segment: the star")
    made = conversation.run_calls(parse(reply))
    # a call that failed takes no handle
    assert [each.call.output for each in made if each.artefact] == ["img_1", "mask_1"]
    assert isinstance(made[0].error, SpecialistError)
    assert isinstance(made[1].error, PlanError)
    assert str(made[1].error) == "image_segmentation needs img_1, which has no result"
    assert [(each.error, each.call.input) for each in made[2:]] == [(None, None), (None, "img_1")]
    # the conversation goes on
    (later,) = conversation.run_calls(parse(call("C", "remove: the circle")))
    assert (later.call.input, later.call.output) == ("img_1", "img_2")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (call("B", "segment: red"), "image_segmentation needs image, but this conversation has none"),
        (call("E", "track: red"), "video_segmentation needs video, but this conversation has none"),
        (DRAW + call("C", "remove: it", "input: img_9"), "there is no img_9 in this conversation"),
        (DRAW + call("E", "track: red", "input: img_1"), "needs video, but img_1 is image"),
        (DRAW + call("C", "remove: it", region="[9, 9, 1, 1]"), "right edge beyond the left"),
        (
            DRAW + call("C", "remove: it", region="[0, 0, 9, 9] @ 3"),
            "img_1 has 1 frames, but no frame 3",
        ),
        (DRAW * 17, "a message has at most 16 calls"),
    ],
)
def test_a_call_that_cannot_run_says_why(conversation, reply, message):
    made = conversation.run_calls(parse(reply))
    assert message in str(made[-1].error)
    assert "\n" not in str(made[-1].error)
    assert made[-1].artefact is None


def test_unknown_modules_and_missing_specialists():
    conversation = Conversation(specialists=SpecialistRegistry())
    turn = Turn(invocations=(Invocation(module="sing", instruction=(Instruction(text="x"),)),))
    assert conversation.plan(turn)[0].problem == "there is no module sing"
    assert conversation.plan(parse(DRAW))[0].problem == (
        "no specialist serves text_to_image: `vitron specialists` lists those that can be set up"
    )


def test_conversations_share_no_media():
    shared = toy_registry()
    one, two = Conversation(specialists=shared), Conversation(specialists=shared)
    one.run_calls(parse(DRAW))
    assert two.media == {}
    assert "has none" in two.plan(parse(call("B", "segment: red")))[0].problem


def test_a_region_of_the_first_turn_is_the_same_in_the_fifth():
    boxes, shapes = [], []

    class Watcher(ToyPainter):
        def run(self, request, *, signal=None, seed=0):
            if request.region is not None:
                boxes.append(request.region)
                shapes.append((request.mask.shape, request.mask.mean()))
            return super().run(request, signal=signal, seed=seed)

    registry = SpecialistRegistry()
    registry.register("watcher", Watcher)
    conversation = Conversation(specialists=registry)
    conversation.run_calls(parse(call("A", "draw: a red circle", "size: 100x80")))
    box = "[250, 250, 750, 750]"
    for _ in range(5):
        conversation.run_calls(
            parse(call("C", "add: a blue star", region=box) + call("R", "upscale: it", "scale: 2"))
        )
    assert len(set(boxes)) == 1
    assert boxes[0].corners == BoxRegion(x0=250 / 999, y0=250 / 999, x1=750 / 999, y1=750 / 999).corners
    assert [shape for shape, _ in shapes] == [(80 * 2**n, 100 * 2**n) for n in range(5)]
    assert all(share == pytest.approx(0.25, abs=0.01) for _, share in shapes)


def test_a_handle_that_is_not_there_names_those_that_are(conversation):
    with pytest.raises(KeyError, match="no mask_1 in this conversation, it has no media"):
        conversation.media["mask_1"]
    conversation.add_media(drawn())
    conversation.run_calls(parse("<module>B</module><instruction>segment: the elephant</instruction>"))
    with pytest.raises(KeyError, match=r"no mask_1 in this conversation, it has img_1: .* or failed"):
        conversation.media["mask_1"]
    assert conversation.media.get("mask_1") is None
    assert "mask_1" not in conversation.media


def test_media_of_the_user_have_handles(conversation):
    image = Artefact("image", np.full((20, 30, 3), 255, dtype=np.uint8))
    assert [conversation.add_media(image), conversation.add_media(image)] == ["img_1", "img_2"]
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 5:9] = True
    assert conversation.add_media(Artefact("masks", mask[None, None], ("mine",))) == "mask_1"
    (made,) = conversation.run_calls(parse(call("C", "add: a red square", region="mask_1")))
    assert np.array_equal((made.artefact.data != 255).any(axis=-1), mask)
    region = mask_to_region(mask)
    turn = Turn(
        invocations=(
            Invocation(
                module="image_editing",
                instruction=(Instruction(verb="add", text="a blue square"),),
                args={"input": "img_1"},
                region=region,
            ),
        )
    )
    (again,) = conversation.run_calls(turn)
    assert np.array_equal((again.artefact.data != 255).any(axis=-1), mask)


def test_seeds_and_signals_reach_the_specialist():
    seen = []

    class Watcher(ToyPainter):
        def run(self, request, *, signal=None, seed=0):
            seen.append((seed, None if signal is None else signal.shape))
            return super().run(request, signal=signal, seed=seed)

    registry = SpecialistRegistry()
    registry.register("watcher", Watcher)
    registry.register("segmenter", ToySegmenter)
    reply = call("A", "draw: a star", "seed: 9") + DRAW
    Conversation(specialists=registry).run_calls(
        parse(reply), seed=4, signals=[None, np.zeros((8, 16), dtype=np.float32)]
    )
    assert seen == [(9, None), (4, (8, 16))]


class Signalling:
    """A model whose second call is malformed, each with signals."""

    def stream(self, messages, media, regions, sampling):
        for number, module in enumerate(("A", "Z")):
            yield MessageChunk(call(module, "draw: a red star"))
            yield MessageChunk("<sig_p0>", np.full((8, 4), number, np.float32))


def test_signals_of_a_malformed_call_reach_no_other():
    seen = []

    class Watcher(ToyPainter):
        def run(self, request, *, signal=None, seed=0):
            seen.append(signal.max())
            return super().run(request, signal=signal, seed=seed)

    registry = SpecialistRegistry()
    registry.register("watcher", Watcher)
    exchange(Conversation(Signalling(), specialists=registry), "draw")
    assert seen == [0]


def test_half_a_surrogate_pair_of_a_user_is_replaced(recorder):
    model = recorder("fine")
    exchange(Conversation(model, specialists=SpecialistRegistry()), "a\ud800b")
    assert model.shown == [[["a\ufffdb"]]]


def drawn(seed=0, size=(20, 30)):
    return Artefact("image", np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def exchange(conversation, text, **options):
    """Add a user message and return the events of the answer."""
    conversation.add_user_message(text, **options)
    return list(conversation.generate())


def results_of(events):
    return [event.result for event in events if isinstance(event, ResultEvent)]


def test_a_follow_up_edits_the_mask_of_the_turn_before(recorder):
    model = recorder(
        call("B", "segment: the red circle"),
        call("C", "recolour: the red circle to blue", region="mask_1"),
        call("C", "remove: the blue circle", region="mask_1"),
        "done",
    )
    conversation = Conversation(model, specialists=toy_registry())
    image = Artefact("image", draw(*SCENE))
    (mask,) = results_of(exchange(conversation, "segment the red circle", media=[image]))
    (blue,) = results_of(exchange(conversation, "make it blue"))
    assert (blue.call.input, blue.call.output) == ("img_1", "img_2")
    # the mask was made on the image before the edit, which has the same size
    (gone,) = results_of(exchange(conversation, "now remove it"))
    assert (gone.call.input, gone.call.output) == ("img_2", "img_3")
    left = {thing.shape for thing in things_in(gone.artefact.data)}
    assert left == {thing.shape for thing in things_in(image.data)} - {"circle"}
    assert mask.artefact.labels == ("red circle",)
    exchange(conversation, "thanks")
    # media 0 to 3 are img_1, mask_1, img_2, img_3
    users = model.shown[-1][::2]
    assert users == [[0, "segment the red circle"], [1, "make it blue"], [2, "now remove it"], [3, "thanks"]]


def test_several_masks_and_the_latest_image_are_shown(generator, specialists):
    conversation = Conversation(generator, specialists=specialists)
    scene = Artefact("image", draw(*SCENE))
    conversation.add_user_message("hello", media=[scene])
    conversation.run_calls(
        parse(
            call("B", "segment: the red circle")
            + call("C", "remove: the red circle")
            + call("C", "remove: the blue square")
            + call("B", "segment: the star")
        )
    )
    assert list(conversation.media) == ["img_1", "mask_1", "img_2", "img_3", "mask_2"]
    conversation.add_user_message("and now")
    assert [part.media for part in conversation.messages[-1].content[:-1]] == [1, 3, 4]


def test_a_call_names_the_region_that_the_user_drew():
    seen = []

    class Watcher(ToyPainter):
        def run(self, request, *, signal=None, seed=0):
            seen.append(request)
            return super().run(request, signal=signal, seed=seed)

    registry = SpecialistRegistry()
    registry.register("watcher", Watcher)
    conversation = Conversation(specialists=registry)
    clicks = PointsRegion(points=((0.2, 0.3),))
    box = BoxRegion(x0=0.5, y0=0.5, x1=1, y1=1)
    conversation.add_user_message("here and there", media=[drawn()], regions=[clicks, box])
    made = conversation.run_calls(
        parse(
            call("C", "add: a red circle", region="region_1")
            + call("C", "add: a blue star", region="region_2")
        )
    )
    assert [each.error for each in made] == [None, None]
    # a specialist gets what was drawn, and never a handle
    assert [request.region for request in seen] == [clicks, box]
    assert np.array_equal(seen[1].mask, rasterise(box, 20, 30))
    # the second call works on the result of the first, which has the size of the image drawn on
    assert [each.call.input for each in made] == ["img_1", "img_2"]
    # a region of the user may be a handle as well
    conversation.add_user_message("there again", regions=[ReferenceRegion(name="region_2")])
    conversation.run_calls(parse(call("C", "add: a green star", region="region_3")))
    assert seen[-1].region == box


@pytest.mark.parametrize("handle", ["mask_1", "region_1"])
def test_a_region_works_on_media_of_its_size_alone(handle):
    conversation = Conversation(specialists=toy_registry())
    box = BoxRegion(x0=0, y0=0, x1=0.5, y1=0.5)
    conversation.add_user_message("look", media=[drawn(1), drawn(2)], regions=[box])
    mask = rasterise(box, 20, 30)
    conversation.add_media(Artefact("masks", mask[None, None], ("mine",)))
    conversation.add_user_message("and this", media=[drawn(3, (64, 64))])
    add = "add: a red square"
    # the latest image has another size: the latest that fits is taken
    (made,) = conversation.run_calls(parse(call("C", add, region=handle)))
    assert made.call.input == "img_2"
    (named,) = conversation.run_calls(parse(call("C", add, "input: img_1", region=handle)))
    assert named.error is None
    (wrong,) = conversation.run_calls(parse(call("C", add, "input: img_3", region=handle)))
    assert isinstance(wrong.error, PlanError)
    assert str(wrong.error) == (
        f"{handle} is a region of 30 x 20 pixels, and img_3 has 64 x 64: name media of that size"
    )
    (unknown,) = conversation.run_calls(parse(call("C", add, region=handle.replace("1", "7"))))
    assert "there is no" in str(unknown.error)


def test_a_reference_of_the_user_has_to_fit():
    conversation = Conversation(specialists=toy_registry())
    mask = np.ones((1, 1, 4, 4), dtype=bool)
    conversation.add_user_message("look", media=[drawn(), Artefact("masks", mask, ("m",))])
    for name, message in (("mask_1", "4 x 4 pixels"), ("mask_2", "no mask_2"), ("region_1", "no region_1")):
        with pytest.raises(PlanError, match=message):
            conversation.add_user_message("this", regions=[ReferenceRegion(name=name)])
    assert len(conversation.messages) == 1


def test_results_are_shown_with_the_next_message(generator, specialists):
    conversation = Conversation(generator, specialists=specialists)
    conversation.add_user_message("draw a red circle")
    list(conversation.generate())
    conversation.add_user_message("make it blue", regions=[BoxRegion(x0=0.1, y0=0.1, x1=0.9, y1=0.9)])
    list(conversation.generate())
    conversation.add_user_message("thanks")
    kinds = [
        [part.type for part in message.content] for message in conversation.messages if message.role == "user"
    ]
    assert kinds == [["text"], ["media", "region", "text"], ["media", "text"]]
    shown = [
        part.media for message in conversation.messages for part in message.content if part.type == "media"
    ]
    assert shown == [0, 1]


def test_a_user_conversation_has_no_toys():
    """The demo's painters know drawn shapes only: they never run for a user."""
    specialists = Conversation().specialists
    assert not [name for name in specialists.names if name.startswith("toy")]


class Endless:
    """A model that neither stops nor counts, and notices when it is closed."""

    is_closed = False

    def stream(self, messages, media, regions, sampling):
        try:
            while True:
                yield MessageChunk("word ")
        finally:
            self.is_closed = True


def test_a_message_ends_at_its_length():
    model = Endless()
    conversation = Conversation(model, specialists=SpecialistRegistry())
    conversation.add_user_message("hello")
    *_, message, done = conversation.generate(SamplingParams(max_new_tokens=3))
    assert isinstance(message, MessageEvent)
    assert (done.turn.text, done.completion_tokens, done.finish) == ("word word word ", 3, "length")
    assert model.is_closed
    assert [each.role for each in conversation.messages] == ["user", "assistant"]


def test_a_check_ends_a_message_without_a_trace():
    def check():
        raise TimeoutError("too slow")

    model = Endless()
    conversation = Conversation(model, specialists=SpecialistRegistry())
    conversation.add_user_message("hello")
    with pytest.raises(TimeoutError, match="too slow"):
        list(conversation.generate(check=check))
    assert model.is_closed
    assert [each.role for each in conversation.messages] == ["user"]


def test_a_conversation_without_a_model_says_so():
    with pytest.raises(ValueError, match="has no model to generate"):
        next(Conversation(specialists=SpecialistRegistry()).generate())


def test_a_fork_goes_its_own_way(generator, specialists):
    conversation = Conversation(generator, specialists=specialists)
    conversation.add_user_message("draw a red circle")
    list(conversation.generate())
    fork = conversation.fork()
    fork.add_user_message("draw a blue star")
    list(fork.generate())
    assert list(conversation.media) == ["img_1"]
    assert list(fork.media) == ["img_1", "img_2"]
    assert len(conversation.messages) == 2
