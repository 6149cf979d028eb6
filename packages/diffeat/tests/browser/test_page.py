# SPDX-License-Identifier: Apache-2.0
"""The page of similarities as somebody uses it: a click, another image, components."""

import pytest
import torch
from diffeat.html import similarity_page
from diffeat.match import similarity_map
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WIDTH, HEIGHT = 8, 6
# the colour of a cell of an image, by its number, column and row
PIXEL = """([number, x, y]) => {
  const canvas = document.querySelectorAll(".stage canvas")[number];
  return Array.from(canvas.getContext("2d").getImageData(x, y, 1, 1).data);
}"""


@pytest.fixture
def features():
    return torch.randn(5, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def page(chromium, features, tmp_path):
    image = Image.new("RGB", (80, 60), "gray")
    file = tmp_path / "page.html"
    text = similarity_page(
        [image, image], [features, features.flip(2)], title="two", captions=["one.png", "other.png"]
    )
    file.write_text(text, "utf-8")
    tab = chromium.new_context(viewport={"width": 1100, "height": 700}).new_page()
    tab.set_default_timeout(180_000)  # milliseconds: a busy machine is slow, not wrong
    troubles = []
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
    tab.goto(file.as_uri())
    yield tab
    assert troubles == []
    tab.context.close()


def click(page, number, x, y):
    """Click the middle of a cell."""
    box = page.locator(".stage").nth(number).bounding_box()
    page.mouse.click(
        box["x"] + (x + 0.5) / WIDTH * box["width"], box["y"] + (y + 0.5) / HEIGHT * box["height"]
    )


def test_a_click_shows_cosines_in_all_images(page, features):
    click(page, 0, 2, 1)
    assert page.inner_text("#reading") == "cell 2, 1; best in image 2: 1.000"
    assert page.evaluate(PIXEL, [0, 2, 1]) == page.evaluate(PIXEL, [1, WIDTH - 3, 1]) == [252, 232, 51, 255]
    wanted = similarity_map(features, features, (2.5 / WIDTH, 1.5 / HEIGHT))
    least = divmod(int(wanted.argmin()), WIDTH)
    assert page.evaluate(PIXEL, [0, least[1], least[0]]) == [13, 8, 77, 255]
    assert float(page.inner_text("#low")) == pytest.approx(float(wanted.min()), abs=0.02)
    dots = page.locator(".dot").evaluate_all("dots => dots.map(dot => dot.style.display)")
    assert dots == ["block", "none", "none", "block"]


def test_dragging_goes_on_and_bars_change_what_is_seen(page):
    click(page, 1, 0, 0)
    assert page.inner_text("#reading").startswith("cell 0, 0; best in image 1: ")
    page.mouse.down()
    box = page.locator(".stage").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + box["height"] * 0.99)
    page.mouse.up()
    assert page.inner_text("#reading").startswith(f"cell {WIDTH - 1}, {HEIGHT - 1}; ")
    before = page.evaluate(PIXEL, [0, 0, 0])
    page.check("#components")
    assert page.evaluate(PIXEL, [0, 0, 0]) != before
    assert not page.is_visible("#reading")
    assert not page.is_visible("#key")
    page.uncheck("#components")
    assert page.evaluate(PIXEL, [0, 0, 0]) == before
    assert page.is_visible("#reading")
    page.fill("#opacity", "20")
    assert page.locator(".stage canvas").first.evaluate("canvas => canvas.style.opacity") == "0.2"
