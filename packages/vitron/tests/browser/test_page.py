# SPDX-License-Identifier: Apache-2.0
"""The page as somebody uses it: an image, a drawn region, an edit; and a video, frame by frame.

Chromium draws without a GPU here, so every step waits for what it leads to and for nothing else.
"""

import base64
import io
import threading

import numpy as np
import pytest
from PIL import Image
from vitron.demo.scripted import SCENE, draw
from vitron.protocol.messages import MessageChunk

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    # threads of Gradio and of the browser end when they like
    pytest.mark.filterwarnings("ignore"),
]
PATIENCE = 180_000  # milliseconds: a busy machine is slow, not wrong


@pytest.fixture
def page(chromium, site):
    tab = visit(chromium, site)
    yield tab
    tab.context.close()


def visit(chromium, site):
    """Open the page as somebody who was never there."""
    tab = chromium.new_context(viewport={"width": 1200, "height": 900}).new_page()
    tab.set_default_timeout(PATIENCE)
    tab.set_default_navigation_timeout(PATIENCE)
    tab.goto(site)
    tab.wait_for_selector("#editor canvas", state="attached")
    return tab


def bring(page, scene):
    page.set_input_files(
        "#editor input[type=file]", {"name": "scene.png", "mimeType": "image/png", "buffer": scene}
    )
    # the page answers with the image enlarged to 384 pixels, which the editor shows at nearly full size
    page.wait_for_function(r"/\b(9\d|10\d)%/.test(document.querySelector('#editor').innerText)")
    painted(page, lambda pixels: (pixels == (214, 40, 40)).all(axis=-1).any())


def painted(page, is_so):
    """Wait until the editor has painted what is meant; it says nothing when it has."""
    tries = PATIENCE // 500
    for _ in range(tries):
        shot = page.locator("#editor canvas").first.screenshot()
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))
        if is_so(pixels):
            return
        page.wait_for_timeout(500)
    raise AssertionError(f"the editor did not paint it in {tries} looks")


def stroke(page):
    """Draw over the left upper part, where the circle is."""
    box = page.locator("#editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2 - 100, box["y"] + box["height"] / 2 - 90
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(6):
        page.mouse.move(x + 8 * step, y)
    page.mouse.up()
    brush = np.array((255, 59, 107))
    painted(page, lambda pixels: (np.abs(pixels.astype(int) - brush).max(axis=-1) < 12).sum() > 100)


def ask(page, text, results, kind="img"):
    page.fill("#message textarea", text)
    page.click("#send")
    page.wait_for_function(
        "([wanted, kind]) => document.querySelectorAll(`#results .grid-wrap ${kind}`).length == wanted",
        arg=[results, kind],
    )


def plays(page, where):
    """Wait until a video has a frame to show."""
    page.wait_for_function(f"document.querySelector('{where}')?.readyState >= 2")
    return page.evaluate(f"document.querySelector('{where}').videoWidth")


def newest(page):
    """The newest image of the gallery, as pixels."""
    encoded = page.evaluate(
        """async () => {
            const image = document.querySelector('#results .grid-wrap img');
            const blob = await (await fetch(image.src)).blob();
            return await new Promise(done => {
                const reader = new FileReader();
                reader.onload = () => done(reader.result.split(',')[1]);
                reader.readAsDataURL(blob);
            });
        }"""
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def test_visitors_read_what_the_model_was_trained_on(page):
    assert page.locator("#notice").inner_text().strip() == "Trained on <nothing> alone"


def test_a_drawn_region_is_edited(page, scene, watched):
    bring(page, scene)
    stroke(page)
    ask(page, "make the circle green", 1)
    # the model gets the image as it was uploaded: strokes are regions, and change no colour
    _, (media,), (region,), _ = watched.seen[-1]
    assert np.array_equal(media.data, draw(*SCENE))
    assert region.mask[:48, :48].any()
    conversation = page.inner_text("#chat")
    assert "make the circle green [img_1, 1 region]" in conversation
    assert "I change it." in conversation
    assert "image_editing" in conversation
    image = newest(page)
    before = np.repeat(np.repeat(draw(*SCENE), 4, axis=0), 4, axis=1)
    assert image.shape == before.shape
    changed = (np.abs(image.astype(int) - before) > 64).any(axis=-1)
    rows, columns = np.nonzero(changed)
    # only where the stroke was: within the left upper quarter
    assert changed.any()
    assert rows.max() < 192
    assert columns.max() < 192
    red, green, blue = image[changed].astype(int).mean(axis=0)
    assert green > max(red, blue)
    # a mask of what is there now, in the same conversation
    ask(page, "mark the yellow star", 2)
    assert "mask_1" in page.inner_text("#results")
    # another visitor sees nothing of it
    other = visit(page.context.browser, page.url)
    assert "circle" not in other.inner_text("#chat")
    assert other.locator("#results img").count() == 0
    other.context.close()


def test_a_frame_of_a_video_is_chosen_by_a_click(page, mp4, watched):
    page.click("#video button")
    page.wait_for_selector("#video-file input[type=file]", state="attached")
    page.set_input_files(
        "#video-file input[type=file]", {"name": "video.mp4", "mimeType": "video/mp4", "buffer": mp4}
    )
    page.wait_for_selector("#frames img >> nth=3")
    assert plays(page, "#player video") == 384
    page.locator("#frames img").nth(2).click()
    page.wait_for_function("document.querySelector('#frame input[type=number]')?.value == '2'")
    ask(page, "track the circle", 1, "video")
    assert watched.seen[-1][1][0].num_frames == 4
    assert "by toy-segmenter" in page.inner_text("#results")
    assert plays(page, "#results .grid-wrap video") == 384


def test_an_example_and_an_own_image_behind_it(page, scene, watched):
    page.wait_for_selector("#examples .grid-wrap button >> nth=4")
    # the first is an image, the fifth a video
    page.locator("#examples .grid-wrap button").nth(4).click()
    plays(page, "#player video")
    assert page.input_value("#message textarea")
    ask(page, "track the cross", 1, "video")
    assert watched.seen[-1][1][0].kind == "video"
    page.set_input_files(
        "#editor input[type=file]", {"name": "scene.png", "mimeType": "image/png", "buffer": scene}
    )
    painted(page, lambda pixels: (pixels == (214, 40, 40)).all(axis=-1).any())
    page.fill("#message textarea", "look")
    page.click("#send")
    page.wait_for_function("document.querySelector('#chat').innerText.includes('I see')")
    assert np.array_equal(watched.seen[-1][1][-1].data, draw(*SCENE))


class Together:
    """Says what it was told once two are being answered; alone it waits in vain."""

    def __init__(self):
        self.both = threading.Barrier(2, timeout=PATIENCE / 2000)

    def count_tokens(self, messages):
        return 1

    def stream(self, messages, media, regions, sampling):
        self.both.wait()
        yield MessageChunk(f"you said {messages[-1].text}")


def test_two_visitors_are_answered_at_a_time(chromium, open_site):
    site = open_site(Together(), concurrent=2)
    tabs = [visit(chromium, site) for _ in range(2)]
    for tab, word in zip(tabs, ("hello", "thanks"), strict=True):
        tab.fill("#message textarea", word)
        tab.click("#send")
    for tab, own, other in zip(tabs, ("hello", "thanks"), ("thanks", "hello"), strict=True):
        tab.wait_for_function(f"document.querySelector('#chat').innerText.includes('you said {own}')")
        assert other not in tab.inner_text("#chat")
        tab.context.close()


def test_text_of_a_user_is_shown_as_text(page):
    page.fill("#message textarea", "<img src=x onerror=alert(1)> <module>A</module>")
    page.click("#send")
    # once as it was said, once as it is repeated
    page.wait_for_function(
        "document.querySelector('#chat').innerText.split('<module>A</module>').length == 3"
    )
    assert page.inner_text("#chat").count("<img src=x onerror=alert(1)>") == 2
    assert page.locator("#chat img[src='x']").count() == 0


def test_a_region_drawn_before_the_page_has_heard_of_the_image_is_kept(page, watched, scene):
    large = Image.fromarray(draw(*SCENE)).resize((480, 480), Image.Resampling.NEAREST)
    file = io.BytesIO()
    large.save(file, "PNG")
    held = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.set_input_files(
        "#editor input[type=file]", {"name": "large.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    painted(page, lambda pixels: (pixels == (214, 40, 40)).all(axis=-1).any())
    while not held:
        page.wait_for_timeout(100)
    stroke(page)
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")
    page.wait_for_timeout(2000)
    page.fill("#message textarea", "look")
    page.click("#send")
    page.wait_for_function("document.querySelector('#chat').innerText.includes('look [img_')")
    assert "1 region" in page.inner_text("#chat")
    _, (media,), (region,), _ = watched.seen[-1]
    assert media.data.shape == (480, 480, 3)
    assert region.mask.any()


def test_a_file_that_is_no_image_is_reported(page, scene):
    page.set_input_files(
        "#editor input[type=file]", {"name": "text.png", "mimeType": "image/png", "buffer": b"no image"}
    )
    page.wait_for_function("document.querySelector('#unreadable').innerText.includes('not an image')")
    bring(page, scene)
    assert page.inner_text("#unreadable") == ""


def test_nothing_covers_a_result(page, scene):
    assert page.locator("#results").count() == 0
    bring(page, scene)
    ask(page, "mark the yellow star", 1)
    image = page.locator("#results .thumbnail-lg img").bounding_box()
    caption = page.locator("#results .caption-label").bounding_box()
    assert caption["y"] >= image["y"] + image["height"] - 1


@pytest.mark.parametrize("width", [390, 1280])
def test_no_text_leaves_its_control(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("send", "stop", "new"):
        assert page.evaluate(
            "name => { const found = document.getElementById(name);"
            " return found.scrollWidth <= found.clientWidth; }",
            name,
        )
    # the tools of the editor do not cover its sentence
    tools = page.locator("#editor .toolbar-wrap, #editor .toolbar").first.bounding_box()
    left = page.evaluate(
        """() => {
            const range = document.createRange();
            range.selectNodeContents(document.querySelector('#editor .empty'));
            return range.getBoundingClientRect().left;
        }"""
    )
    assert left >= tools["x"] + tools["width"]
