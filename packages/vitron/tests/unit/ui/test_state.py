# SPDX-License-Identifier: Apache-2.0
"""What a visitor of the page says and sees, without a page."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from vitron import Artefact, Conversation, SpecialistRegistry
from vitron.demo.scripted import CIRCLE, SCENE, STAR, draw, mask_of
from vitron.protocol.media import decode_media, read_media
from vitron.protocol.rle import decode_mask
from vitron.protocol.sampling import SamplingParams
from vitron.ui.state import SMALLEST, PageState, _counted, enlarge, regions_of, rgb, status_of, thumbnails


@pytest.fixture
def state(generator, specialists):
    return PageState(Conversation(generator, specialists=specialists))


@pytest.fixture
def page():
    return pytest.importorskip("vitron.ui.page", reason="gradio is not installed")


@pytest.fixture
def handlers(page, generator, specialists):
    handlers = page._Handlers(generator, specialists, SamplingParams())
    yield handlers
    handlers._folder.cleanup()


def ask(state, text, *layers):
    return list(state.send(text, layers, SamplingParams()))


def layer(mask):
    drawn = np.zeros((*mask.shape, 4), dtype=np.uint8)
    drawn[mask] = (255, 0, 0, 120)
    return drawn


def test_small_images_are_enlarged_by_whole_factors():
    image = draw(*SCENE)
    large = enlarge(image)
    assert large.shape == (SMALLEST, SMALLEST, 3)
    assert np.array_equal(large[::4, ::4], image)
    assert enlarge(np.zeros((10, 1000, 3), np.uint8)).shape == (10, 1000, 3)


def test_each_layer_that_was_drawn_on_is_a_region():
    mask = mask_of(CIRCLE)
    empty = np.zeros((96, 96, 4), dtype=np.uint8)
    first, second = regions_of([layer(mask), empty, None, layer(~mask)], frame=3)
    assert np.array_equal(decode_mask(first.counts, *first.size), mask)
    assert np.array_equal(decode_mask(second.counts, *second.size), ~mask)
    assert (first.frame, second.frame) == (3, 3)
    assert first.brush
    assert regions_of([empty]) == []


def test_images_of_an_editor_lie_on_white():
    image = np.zeros((2, 2, 4), dtype=np.uint8)
    image[0] = (10, 20, 30, 255)
    assert rgb(image).tolist() == [[[10, 20, 30]] * 2, [[255, 255, 255]] * 2]
    assert rgb(image[..., :3]).shape == (2, 2, 3)
    assert rgb(image[..., 0]).shape == (2, 2, 3)


def test_a_drawn_region_is_edited_and_shown(state, generator):
    state.add(Artefact("image", draw(*SCENE)))
    assert state.canvas.shape == (SMALLEST, SMALLEST, 3)
    drawn = np.repeat(np.repeat(mask_of(CIRCLE), 4, axis=0), 4, axis=1)
    news = ask(state, "make the circle green", layer(drawn))
    assert news[-1] == "done"
    assert "text" in news
    (_, _, (region,), _) = generator.seen[-1]
    assert np.array_equal(region.mask, mask_of(CIRCLE))
    roles = [(message["role"], message.get("metadata", {}).get("title", "")) for message in state.messages]
    assert roles == [
        ("user", ""),
        ("assistant", ""),
        ("assistant", "image_editing"),
        ("assistant", "img_2 from img_1 by toy-painter"),
    ]
    assert state.messages[0]["content"] == "make the circle green [img_1, 1 region]"
    assert state.messages[1]["content"].strip() == "I change it."
    # what was made is worked on from now on
    assert state.latest is state.conversation.media["img_2"]
    assert np.array_equal(state.canvas[::4, ::4], state.results[0].artefact.data)
    assert state.pending is None


def test_masks_lie_over_what_they_mark(state):
    state.add(Artefact("image", draw(*SCENE)))
    ask(state, "mark the red circle")
    (shown,) = state.results
    assert shown.caption == "mask_1: red circle from img_1, by toy-segmenter"
    changed = (shown.artefact.data != draw(*SCENE)).any(axis=-1)
    # what is marked keeps its colours
    assert np.array_equal(changed, ~mask_of(CIRCLE))


def test_a_region_of_a_video_has_its_frame(state, video, generator):
    state.add(decode_media(video))
    state.frame = 2
    assert np.array_equal(state.canvas[::4, ::4], state.latest.frames[2])
    assert [caption for _, caption in thumbnails(state.latest)] == ["0", "1", "2", "3"]
    ask(state, "track the circle", layer(mask_of(CIRCLE)))
    assert generator.seen[-1][2][0].frame == 2
    assert state.results[0].artefact.data.shape == (4, 96, 96, 3)
    assert len(thumbnails(Artefact("video", np.zeros((300, 4, 4, 3), np.uint8)))) == 48


def test_what_fails_is_reported_and_nothing_is_kept(state):
    ask(state, "look", layer(mask_of(CIRCLE)))
    assert "this conversation has none" in state.messages[-1]["content"]
    ask(state, "break")
    assert state.messages[-1]["metadata"]["title"] == "failed"
    assert state.conversation.messages == []
    ask(state, "draw an aunt")
    assert state.messages[-1]["metadata"]["title"] == "text_to_image failed"
    ask(state, "raw <module>Z</module>")
    assert any(message.get("metadata", {}).get("title") == "not understood" for message in state.messages)
    ask(state, "everything")
    assert state.messages[-1]["content"] == "draw an aunt | raw <module>Z</module> | everything"


def test_a_reply_that_is_stopped_leaves_no_trace(state):
    events = state.send("a long story", [], SamplingParams())
    assert next(events) == "text"
    events.close()
    assert state.conversation.messages == []
    ask(state, "hello")
    assert state.messages[-1]["content"] == "You said 1: hello"


def test_what_is_added_while_a_reply_comes_waits_for_the_next_message(state, generator):
    first, second = Artefact("image", draw(*SCENE)), Artefact("image", draw(STAR))
    state.add(first)
    events = state.send("look", [], SamplingParams())
    next(events)
    state.add(second)
    list(events)
    assert state.pending is second
    ask(state, "look again")
    assert generator.seen[-1][1] == (first, second)
    assert state.pending is None


def test_visitors_share_nothing(generator, specialists):
    one, two = (
        PageState(Conversation(generator, specialists=specialists)),
        PageState(Conversation(generator, specialists=specialists)),
    )
    one.add(Artefact("image", draw(*SCENE)))
    ask(one, "mark the red circle")
    assert two.latest is None
    assert two.messages == []
    ask(two, "everything")
    assert two.messages[-1]["content"] == "everything"


def test_the_status_names_all_and_escapes(specialists):
    def broken():
        raise RuntimeError("<b>no</b>")

    specialists.register("broken", broken)
    table = status_of(specialists)
    assert "toy-painter" in table
    assert "&lt;b&gt;no&lt;/b&gt;" in table
    assert "<b>" not in table
    assert 'class="dot bad"' in table
    assert status_of(SpecialistRegistry()).count("<tr>") == 1


def test_a_image_that_the_editor_gives_back_is_no_new_one(state, video):
    image = Artefact("image", draw(*SCENE))
    assert not state.has_shown(enlarge(image.data))
    state.add(image)
    assert not state.has_shown(enlarge(image.data))
    shown = state.show()
    assert state.has_shown(shown)
    assert state.has_shown(shown ^ 1)
    other = shown.copy()
    other[:8, :8] = 0
    assert not state.has_shown(other)
    assert not state.has_shown(image.data)
    # of a video, whichever frame was shown
    state.add(decode_media(video))
    first = state.show()
    assert not state.has_shown(shown)
    state.frame = 2
    assert not state.has_shown(state.canvas)
    assert state.has_shown(first)
    assert state.has_shown(state.show())


def test_the_page_keeps_a_video_when_its_editor_reports_an_upload(state, video, page, handlers):
    state.add(decode_media(video))
    drawing = page._drawing(state)
    handlers.add_image(state, drawing)
    assert state.latest.kind == "video"
    # frames of a video that is gone are no error
    state.add(Artefact("image", draw(*SCENE)))
    handlers.click(state, SimpleNamespace(index=2))
    assert state.frame == 0
    # nor is what was cleared from the editor sent
    handlers.clear(state)
    assert state.latest is None
    assert page._drawing(state) is None
    handlers._folder.cleanup()


def test_what_is_written_while_a_reply_comes_is_kept(state, page, handlers):
    texts = [shown[page.SHOWN.index("message")] for shown in handlers.send(state, "a long story", None)]
    assert texts[0] == ""
    assert "" not in texts[1:]
    # tags are text for the page as well
    for shown in handlers.send(state, "<img src=x> & <module>A</module>", None):
        content = shown[page.SHOWN.index("chat")][-1]["content"]
        assert "<" not in content
    assert "&lt;img src=x&gt; &amp; " in content


def test_the_model_gets_what_the_visitor_sees_without_the_strokes(state, page, handlers, generator, video):
    image = draw(*SCENE)
    state.add(decode_media(video))
    page._drawing(state)
    # an upload of which the page heard only that something was uploaded
    stroke = np.zeros((*image.shape[:2], 4), dtype=np.uint8)
    stroke[20:30, 20:30] = 255, 59, 107, 255
    burnt = np.where(stroke[..., 3:] > 0, stroke[..., :3], image)
    drawing = {"background": image, "layers": [stroke], "composite": burnt}
    list(handlers.send(state, "look", drawing))
    media = generator.seen[-1][1]
    assert [each.kind for each in media] == ["image"]
    assert np.array_equal(media[0].data, image)
    assert np.array_equal(generator.seen[-1][2][0].mask, stroke[..., 3] > 0)
    # what the page itself gave to the editor is no new image, now or later
    shown = handlers.draw(state)[0]["background"]
    list(handlers.send(state, "look again", {"background": shown, "layers": []}))
    assert len(generator.seen[-1][1]) == 1


def test_examples_are_images_and_videos(page, handlers):
    examples = handlers._offered
    assert {example.artefact.kind for example in examples} == {"image", "video"}
    assert all(example.text for example in examples)
    _, shown = handlers.welcome()
    assert [text for _, text in shown] == [example.text for example in examples]
    videos = [file for file, _ in shown if isinstance(file, str)]
    assert all(read_media(Path(file)).kind == "video" for file in videos)
    # they are written once, however many come
    assert [file for file, _ in handlers.welcome()[1] if isinstance(file, str)] == videos
    index = next(at for at, each in enumerate(examples) if each.artefact.kind == "video")
    state, redraws, text = handlers.add_example(None, SimpleNamespace(index=index))
    assert redraws == 1
    _, _, player, _, frames = handlers.draw(state)
    assert (state.latest, text) == (examples[index].artefact, examples[index].text)
    assert read_media(Path(player["value"])).num_frames == state.latest.num_frames
    assert len(frames["value"]) == state.latest.num_frames
    page._forget(state)
    assert not Path(player["value"]).exists()


def test_examples_that_no_specialist_serves_are_not_offered(page, generator, handlers):
    offered = {module for example in handlers._offered for module in example.modules}
    assert {"image_segmentation", "image_editing"} <= offered
    alone = page._Handlers(generator, SpecialistRegistry(), SamplingParams())
    assert alone._offered
    assert [example for example in alone._offered if example.modules] == []
    alone._folder.cleanup()


def redraws(handlers, state, image):
    drawing = {"background": image, "layers": [], "composite": image}
    return handlers.add_image(state, drawing)[1]


def test_an_image_that_needs_no_enlarging_is_left_in_the_editor(state, handlers, page, generator):
    # a region may be drawn on it before the page has heard of the image, and must not be lost
    large = enlarge(draw(*SCENE))
    opaque = np.concatenate([large, np.full_like(large[..., :1], 255)], axis=-1)
    assert redraws(handlers, state, opaque) == 0
    assert np.array_equal(state.latest.data, large)
    region = np.zeros_like(opaque)
    region[40:160, 40:160] = 255
    *_, last = handlers.send(state, "look", {"background": opaque, "layers": [region]})
    assert len(generator.seen[-1][1]) == len(generator.seen[-1][2]) == 1
    # the strokes that were sent are removed, once
    assert last[page.SHOWN.index("redraw")] == 1
    # a small or a transparent one is shown otherwise than it was uploaded
    assert redraws(handlers, state, draw(STAR)) == 2
    transparent = opaque.copy()
    transparent[:8, :8, 3] = 0
    assert redraws(handlers, state, transparent) == 3
    assert (state.latest.data[:8, :8] == 255).all()
    # a new conversation empties the editor, whatever was in it
    assert handlers.new(state)[page.SHOWN.index("redraw")] == 4
    assert handlers.new(None)[page.SHOWN.index("redraw")] == 1


def test_images_and_files_that_cannot_be_used_are_refused_in_a_sentence(
    state, page, handlers, tmp_path, monkeypatch
):
    monkeypatch.setattr(page, "MAX_PIXELS", 9000)
    image = {"background": draw(*SCENE), "layers": []}
    for refuse in (
        lambda: handlers.add_image(state, image),
        lambda: list(handlers.send(state, "look", image)),
    ):
        with pytest.raises(page.gr.Error, match="at most 9,000 pixels, this one has 9,216") as caught:
            refuse()
        assert not caught.value.print_exception
    (tmp_path / "clip.mp4").write_text("no video\n" * 50)
    with pytest.raises(
        page.gr.Error, match="the file is neither a video nor an image that can be read"
    ) as caught:
        handlers.add_video(state, str(tmp_path / "clip.mp4"))
    assert not caught.value.print_exception


def test_a_gallery_is_shown_once_it_has_results(state, page, handlers):
    at = page.SHOWN.index("results")
    *_, last = handlers.send(state, "hello", None)
    assert last[at]["visible"] is False
    state.add(Artefact("image", draw(*SCENE)))
    *_, last = handlers.send(state, "mark the red circle", None)
    assert last[at]["visible"] is True
    assert len(last[at]["value"]) == 1


def test_equal_labels_are_counted():
    assert _counted(["star", "thing", "thing"]) == "star, thing (2)"
