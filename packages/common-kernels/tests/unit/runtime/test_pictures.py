# SPDX-License-Identifier: Apache-2.0
import base64
import io
import itertools
import json
import re

import numpy as np
import pytest
from common_kernels.runtime import pictures
from common_kernels.runtime.pictures import LegendEntry, Panel
from PIL import Image

RED, BLUE = (200, 30, 40), (20, 60, 220)
# Machado, Oliveira and Fernandes, 2009: what full protanopia, deuteranopia and tritanopia leave of linear RGB
BLINDNESS = {
    "none": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "protan": [0.1523, 1.0526, -0.2049, 0.1145, 0.7863, 0.0992, -0.0039, -0.0481, 1.0520],
    "deutan": [0.3673, 0.8606, -0.2280, 0.2801, 0.6725, 0.0474, -0.0118, 0.0429, 0.9689],
    "tritan": [1.2555, -0.0767, -0.1788, -0.0784, 0.9308, 0.1476, 0.0047, 0.6914, 0.3039],
}


def block(colour, size=(40, 30)):
    return Image.new("RGB", size, colour)


def colours_in(image):
    return {colour for _, colour in image.getcolors(image.width * image.height)}


def lab(rgb):
    """CIE Lab of linear RGB."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt((rgb.clip(0, 1) @ matrix.T / [0.9505, 1, 1.089]).T)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize("blindness", BLINDNESS.values(), ids=BLINDNESS)
def test_colours_stay_apart_for_the_colour_blind(blindness):
    linear = (pictures.distinct_colours(7) / 255) ** 2.2
    seen = lab(linear @ np.reshape(blindness, (3, 3)).T)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 12


def test_any_number_of_distinct_colours():
    many = pictures.distinct_colours(300)
    assert (many.shape, many.dtype) == ((300, 3), np.uint8)
    assert len(np.unique(many, axis=0)) == 300
    np.testing.assert_array_equal(pictures.distinct_colours(20), many[:20])
    assert pictures.distinct_colours(0).shape == (0, 3)


def test_text_is_measured_and_cut():
    font = pictures.load_font(14)
    assert pictures.shorten("short", font, 500) == "short"
    cut = pictures.shorten("a long line of text", font, 60)
    assert cut.startswith("a l")
    assert cut.endswith("...")
    assert pictures.text_size(cut, font)[0] <= 61
    assert pictures.text_size("a", font)[1] == pictures.text_size("Ag", font)[1] > 10
    assert pictures.shorten("text", font, 0) == "..."


def test_letters_that_the_built_in_font_lacks(monkeypatch):
    asked = []

    def truetype(name, size):
        asked.append(name)
        if len(asked) < 2:
            raise OSError
        return name

    with monkeypatch.context() as patch:
        patch.setattr(pictures.ImageFont, "truetype", truetype)
        assert pictures.load_font(12, "Straße") == asked[1] != asked[0]
    assert pictures.load_font(12, "street").getname() == pictures.ImageFont.load_default(12).getname()


def test_legend_shows_colours_below_the_image():
    entries = [LegendEntry("red", RED, "12%"), LegendEntry("nothing", None), LegendEntry("b" * 500, BLUE)]
    image = block((1, 2, 3), (600, 80))
    drawn = pictures.add_legend(image, entries)
    assert drawn.width == 600
    assert drawn.crop((0, 0, 600, 80)).tobytes() == image.tobytes()
    below = drawn.crop((0, 80, 600, drawn.height))
    assert {RED, BLUE} <= colours_in(below)
    narrow = pictures.add_legend(block(RED, (10, 10)).convert("RGBA"), entries[:1], min_width=200)
    assert (narrow.width, narrow.getpixel((100, 5)), narrow.getpixel((5, 5))) == (
        200,
        RED,
        pictures.BACKGROUND,
    )
    assert pictures.add_legend(image, []).width == 600


def test_legend_of_many_entries_stays_below_a_page():
    entries = [LegendEntry(f"class {i}", RED) for i in range(60)]
    assert pictures.add_legend(block(BLUE, (1200, 100)), entries, font_size=14).height < 450


def test_comparison_of_one_width():
    panels = [Panel("before", "12.1 dB", block(RED)), Panel("after", "", block(BLUE, (30, 30)).convert("L"))]
    drawn = pictures.comparison(panels, width=120)
    assert drawn.size == (2 * 120 + 3 * 14, 120 + 50 + 2 * 14)
    assert drawn.getpixel((14 + 60, 14 + 50 + 45)) == RED
    assert drawn.getpixel((14 + 60, drawn.height - 18)) == pictures.BACKGROUND
    assert drawn.getpixel((28 + 120 + 60, drawn.height - 18))[0] > 50


def test_comparison_of_one_height_without_titles():
    drawn = pictures.comparison([Panel("", "", block(RED)), Panel("", "", block(BLUE, (60, 30)))], height=60)
    assert drawn.size == (80 + 120 + 3 * 14, 60 + 2 * 14)
    assert drawn.getpixel((14 + 79, 14)) == RED
    assert drawn.getpixel((28 + 80, 14)) == BLUE


def test_comparison_in_rows():
    panels = [Panel(f"{i}", "", block((i, 0, 0), (10, 10))) for i in range(100, 105)]
    drawn = pictures.comparison(panels, width=100, columns=3)
    assert drawn.size == (3 * 114 + 14, 2 * (28 + 100 + 14) + 14)
    assert drawn.getpixel((14 + 50, 14 + 142 + 28 + 50)) == (103, 0, 0)
    assert drawn.getpixel((2 * 114 + 14 + 50, 14 + 142 + 28 + 50)) == pictures.BACKGROUND
    with pytest.raises(ValueError, match="at least one panel"):
        pictures.comparison([])


def test_a_long_strip_is_not_shown_at_any_height():
    assert pictures.comparison([Panel("", "", block(RED, (2, 1000)))], width=100).height == 400 + 28


def test_enlarged_pixels_stay_as_they_are():
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(5, 5, 3), dtype=np.uint8))
    large = np.asarray(pictures.enlarge_or_reduce(image, (15, 15)))
    np.testing.assert_array_equal(large, np.asarray(image).repeat(3, 0).repeat(3, 1))
    assert pictures.enlarge_or_reduce(image, (5, 5)).tobytes() == image.tobytes()
    assert pictures.enlarge_or_reduce(image.convert("L"), (2, 2)).mode == "RGB"


def test_contact_sheet():
    images = [block(RED), block(BLUE, (10, 40)), *[block((i, i, i)) for i in (50, 60, 70)]]
    drawn = pictures.contact_sheet(images, ["a", "b", "c" * 200, "d", "e"], side=100, title="all")
    assert drawn.size == (3 * 114 + 14, 2 * (100 + 22 + 14) + 14 + 28)
    assert drawn.getpixel((14 + 50, 28 + 14 + 50)) == RED
    assert drawn.getpixel((14 + 114 + 50, 28 + 14 + 1)) == BLUE
    assert drawn.getpixel((14 + 114 + 5, 28 + 14 + 50)) == pictures.BACKGROUND
    assert pictures.contact_sheet([block(RED)], side=50).size == (78, 78)
    with pytest.raises(ValueError, match="one caption each or none, got 5 and 1"):
        pictures.contact_sheet(images, ["a"])
    with pytest.raises(ValueError, match="got 0"):
        pictures.contact_sheet([])


def test_titles_and_stacks():
    titled = pictures.add_title(block(RED), "a title that is too long for it", indent=4)
    assert titled.size == (40, 30 + 22)
    assert len(colours_in(titled.crop((0, 0, 40, 22)))) > 3
    assert titled.crop((0, 22, 40, 52)).tobytes() == block(RED).tobytes()
    stacked = pictures.stack([block(RED), block(BLUE, (60, 10))], title="both")
    assert stacked.size == (60, 40 + 25)
    assert stacked.getpixel((59, 64)) == BLUE
    assert stacked.getpixel((59, 30)) == pictures.BACKGROUND


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/webp"])
def test_data_uris_hold_the_image(mime):
    uri = pictures.data_uri(block(RED), mime)
    head, data = uri.split(",")
    assert head == f"data:{mime};base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.get_format_mimetype(), image.size) == (mime, (40, 30))
    assert pictures.data_uri(b"\0\1", "video/mp4") == "data:video/mp4;base64,AAE="


HOSTILE = "</script><script>alert('x')</script> \" ' & < > @@B@@ \u2028"


def test_hostile_texts_stay_texts():
    tag = pictures.html_image(b"", HOSTILE)
    assert tag.count("<") == tag.count(">") == 1
    assert re.search(r'alt="([^"]*)"', tag)[1] == pictures.escape(HOSTILE)
    packed = pictures.json_for_script({"name": HOSTILE})
    assert "<" not in packed
    assert json.loads(packed) == {"name": HOSTILE}
    with pytest.raises(ValueError, match="not JSON compliant"):
        pictures.json_for_script(float("nan"))


def test_templates_are_filled_once():
    assert pictures.fill_template("a @@A@@ b @@B@@", {"A": "@@B@@", "B": "2"}) == "a @@B@@ b 2"
    with pytest.raises(KeyError, match="B"):
        pictures.fill_template("@@B@@", {"A": ""})


def test_pages_are_self_contained():
    page = pictures.html_page(
        HOSTILE, "<p>hello</p>", style="p { color: red }</style>", script='f("</SCRIPT>")'
    )
    assert page.startswith("<!doctype html>")
    assert f"<title>{pictures.escape(HOSTILE)}</title>" in page
    assert "<p>hello</p>" in page
    assert "default-src 'none'" in page
    assert "script-src 'unsafe-inline'" in page
    assert page.lower().count("</script>") == page.count("</style>") == 1
    assert "http:" not in page
    assert "https:" not in page
    assert "script" not in pictures.html_page("a", "")


def test_masks_keep_the_colours_of_what_they_cover():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    masks = np.zeros((2, 20, 30), dtype=bool)
    masks[0, 2:8, 2:8] = masks[1, 10:18, 15:25] = True
    drawn = pictures.draw_masks(image, masks, line=2)
    covered = masks.any(axis=0)
    assert np.array_equal(drawn[covered], image[covered])
    first, second = pictures.distinct_colours(2)
    assert (drawn[0:2, 2:8] == first).all()
    assert (drawn[10:18, 25:27] == second).all()
    # elsewhere the image is there, with less contrast
    assert 0 < drawn[:, 29].std() < image[:, 29].std()
    assert np.array_equal(pictures.draw_masks(image, masks[:, :, :] & False), image)
    with pytest.raises(ValueError, match=r"must be \(K, 20, 30\), got \(2, 20, 29\)"):
        pictures.draw_masks(image, masks[:, :, 1:])
