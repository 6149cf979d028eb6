# SPDX-License-Identifier: Apache-2.0
"""What all packages draw alike: text, legends, comparisons, contact sheets and self-contained pages."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = [
    "BACKGROUND",
    "MUTED",
    "TEXT",
    "Font",
    "LegendEntry",
    "Panel",
    "add_legend",
    "add_title",
    "comparison",
    "contact_sheet",
    "data_uri",
    "distinct_colours",
    "draw_masks",
    "enlarge_or_reduce",
    "escape",
    "fill_template",
    "html_image",
    "html_page",
    "json_for_script",
    "load_font",
    "shorten",
    "stack",
    "text_size",
]

BACKGROUND, TEXT, MUTED = (18, 18, 20), (245, 245, 245), (165, 168, 175)
_SWATCH_BORDER = (225, 225, 228)
_GAP = 14
_DIMMED, _GREY = 0.4, 105  # share that stays of what no mask covers, and what it is mixed with
_TALLEST = 4  # times the width of a panel; a longer strip is shown narrower
# Okabe and Ito, "Color Universal Design", 2008, without black and with the yellow last
_COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0)),
    *((0, 114, 178), (204, 121, 167), (240, 228, 66)),
)
# the font inside Pillow has ASCII only
_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def load_font(size: int, *texts: str) -> Font:
    """Return Pillow's own font, or one of the system if that one lacks a letter of the texts.

    Args:
        size: Height in pixels.
        texts: Texts that will be drawn.
    """
    if not all(text.isascii() for text in texts):
        for file in _FONTS:
            try:
                return ImageFont.truetype(file, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def text_size(text: str, font: Font) -> tuple[int, int]:
    """Return width and height of a line of text in pixels; the height is the same for all texts."""
    return math.ceil(font.getlength(text)), math.ceil(font.getbbox("Agj|")[3])


def shorten(text: str, font: Font, width: float) -> str:
    """Return a text, cut to a width in pixels if it is wider; ``...`` then stands at its end."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def distinct_colours(count: int) -> NDArray[np.uint8]:
    """Return colours that readers with colour blindness tell apart, ``(count, 3)`` RGB.

    The first seven are those of Okabe and Ito; further ones are darker and lighter shades of them.

    Args:
        count: Number of colours.

    Example:
        >>> distinct_colours(2).tolist()
        [[230, 159, 0], [86, 180, 233]]
    """
    base = np.array(_COLOURS, dtype=np.float64)
    shades = [base]
    for cycle in range(1, -(-count // len(base))):
        target = 0 if cycle % 2 else 255
        # steps of the golden section: shades that follow each other are far apart
        strength = 0.2 + 0.5 * ((0.6 + 0.618034 * (cycle // 2)) % 1)
        shades.append(base + strength * (target - base))
    return np.concatenate(shades)[:count].round().astype(np.uint8)


def draw_masks(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], *, line: int | None = None
) -> NDArray[np.uint8]:
    """Draw masks on an image: the rest is dimmed, and each mask has an outline in a colour of its own.

    What a mask covers keeps its colours, except below the outlines of other masks.

    Args:
        image: ``(H, W, 3)``.
        masks: ``(K, H, W)``.
        line: Width of the outlines in pixels, outside of their masks; suits the image if ``None``.

    Returns:
        ``(H, W, 3)``; the image itself if no mask covers a pixel.

    Raises:
        ValueError: If the sizes differ.
    """
    if masks.ndim != 3 or masks.shape[1:] != image.shape[:2]:
        raise ValueError(f"masks must be (K, {image.shape[0]}, {image.shape[1]}), got {masks.shape}")
    if not masks.any():
        return image
    line = line or max(1, round(max(image.shape[:2]) / 200))
    dimmed = _DIMMED * image + (1 - _DIMMED) * _GREY
    covered = masks.max(axis=0, keepdims=True)[0]
    drawn = np.where(covered[..., None], image, dimmed.round().astype(np.uint8))
    for mask, colour in zip(masks, distinct_colours(len(masks)), strict=True):
        wider = Image.fromarray(mask.view(np.uint8)).filter(ImageFilter.MaxFilter(2 * line + 1))
        drawn[(np.asarray(wider) > 0) & ~mask] = colour
    return drawn


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One line of a legend.

    Attributes:
        name: Text beside the colour.
        colour: RGB, each in [0, 255]; ``None`` leaves the swatch empty.
        note: Smaller text behind the name.
    """

    name: str
    colour: tuple[int, int, int] | None
    note: str = ""


def add_legend(
    image: Image.Image, entries: Sequence[LegendEntry], *, font_size: int | None = None, min_width: int = 360
) -> Image.Image:
    """Put a legend below an image, in as many columns as fit.

    Args:
        image: Image of any mode; a narrow one is centred.
        entries: Any number; names that are wider than the legend are cut.
        font_size: Height of the letters in pixels; suits the image if ``None``.
        min_width: Least width of the result in pixels.
    """
    size = font_size or max(13, round(max(image.size) / 55))
    font = load_font(size, *(entry.name for entry in entries))
    note_font = load_font(max(11, size - 3), *(entry.note for entry in entries))
    width = max(image.width, min_width)
    pad, swatch, row = round(0.8 * size), round(1.1 * size), round(1.9 * size)
    names = [shorten(entry.name, font, width - 4 * pad - swatch - 4 * size) for entry in entries]
    note_width = max((note_font.getlength(entry.note) for entry in entries), default=0) + pad
    name_width = max((font.getlength(name) for name in names), default=0)
    cell = round(swatch + 1.2 * pad + name_width + note_width)
    columns = max(1, min(len(entries), (width - pad) // (cell + pad)))
    rows = -(-len(entries) // columns)
    sheet = Image.new("RGB", (width, image.height + rows * row + 2 * pad), BACKGROUND)
    sheet.paste(image.convert("RGB"), ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for number, (entry, name) in enumerate(zip(entries, names, strict=True)):
        left = pad + (number // rows) * ((width - pad) // columns)
        middle = image.height + pad + (number % rows) * row + row // 2
        top = middle - swatch // 2
        # a light border shows even a black or navy colour on the dark background
        box = (left, top, left + swatch, top + swatch)
        draw.rectangle(box, fill=entry.colour, outline=_SWATCH_BORDER, width=max(1, size // 12))
        at = left + swatch + 0.6 * pad
        draw.text((at, middle), name, TEXT, font, anchor="lm")
        draw.text((at + font.getlength(name) + 0.6 * pad, middle), entry.note, MUTED, note_font, anchor="lm")
    return sheet


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of a comparison.

    Attributes:
        title: Text above the image.
        subtitle: Smaller text below the title.
        image: Image of any mode and size.
    """

    title: str
    subtitle: str
    image: Image.Image


def enlarge_or_reduce(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an RGB image of another size: enlarged, pixels show as they are; reduced, they are averaged.

    Args:
        image: Image of any mode.
        size: Width and height.
    """
    image = image.convert("RGB")
    if image.size == size:
        return image
    larger = size[0] > image.width or size[1] > image.height
    return image.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)


def comparison(
    panels: Sequence[Panel], *, width: int = 420, height: int | None = None, columns: int | None = None
) -> Image.Image:
    """Draw images side by side under their titles, such as before and after.

    Args:
        panels: At least one.
        width: Width of each image in pixels, if there is no height; a long strip is shown narrower.
        height: Height of each image in pixels, whatever its width.
        columns: Images in a row; all of them if ``None``.

    Raises:
        ValueError: If there is no panel.
    """
    if not panels:
        raise ValueError("panels must hold at least one panel, got none")
    sizes = [_panel_size(panel.image, width, height) for panel in panels]
    titles = load_font(20, *(panel.title for panel in panels))
    subtitles = load_font(14, *(panel.subtitle for panel in panels))
    has_title, has_subtitle = any(panel.title for panel in panels), any(panel.subtitle for panel in panels)
    head = 28 * has_title + 22 * has_subtitle
    columns = min(columns or len(panels), len(panels))
    rows = [range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)]
    # with a common width the columns stand below each other
    spans = [size[0] if height else width for size in sizes]
    total = max(sum(spans[index] + _GAP for index in row) for row in rows) + _GAP
    heights = [max(sizes[index][1] for index in row) for row in rows]
    sheet = Image.new("RGB", (total, sum(heights) + len(rows) * (head + _GAP) + _GAP), BACKGROUND)
    draw, top = ImageDraw.Draw(sheet), _GAP
    for row, row_height in zip(rows, heights, strict=True):
        left = _GAP
        for index in row:
            panel, span = panels[index], spans[index]
            draw.text((left, top - 4), shorten(panel.title, titles, span), TEXT, titles)
            place = (left, top - 2 + 28 * has_title)
            draw.text(place, shorten(panel.subtitle, subtitles, span), MUTED, subtitles)
            sheet.paste(enlarge_or_reduce(panel.image, sizes[index]), (left, top + head))
            left += span + _GAP
        top += head + row_height + _GAP
    return sheet


def _panel_size(image: Image.Image, width: int, height: int | None) -> tuple[int, int]:
    scale = height / image.height if height else min(width / image.width, _TALLEST * width / image.height)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str] = (),
    *,
    columns: int | None = None,
    side: int = 192,
    title: str = "",
) -> Image.Image:
    """Draw a grid of small images with captions.

    Args:
        images: At least one, of any sizes; each is fitted into a square.
        captions: Text below each image, cut where it is too wide; none if empty.
        columns: Images in a row; about as many as there are rows if ``None``.
        side: Side of the square in pixels.
        title: Text above the sheet; none if empty.

    Raises:
        ValueError: If there is no image, or not one caption for each.
    """
    if not images or len(captions) not in (0, len(images)):
        raise ValueError(f"images must have one caption each or none, got {len(images)} and {len(captions)}")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = -(-len(images) // columns)
    font = load_font(14, *captions)
    cell = side + (22 if captions else 0) + _GAP
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, rows * cell + _GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = _GAP + index % columns * (side + _GAP), _GAP + index // columns * cell
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        sheet.paste(
            enlarge_or_reduce(image, size), (left + (side - size[0]) // 2, top + (side - size[1]) // 2)
        )
        if captions:
            caption = shorten(captions[index], font, side)
            draw.text((left + side / 2, top + side + 4), caption, MUTED, font, anchor="ma")
    return add_title(sheet, title, font_size=20, indent=_GAP) if title else sheet


def add_title(image: Image.Image, text: str, *, font_size: int = 14, indent: int = 0) -> Image.Image:
    """Put a line of text above an image.

    Args:
        image: Image of any mode.
        text: Text, cut where it is too wide.
        font_size: Height of the letters in pixels.
        indent: Pixels left of the text.
    """
    band, font = font_size + 8, load_font(font_size, text)
    sheet = Image.new("RGB", (image.width, image.height + band), BACKGROUND)
    sheet.paste(image.convert("RGB"), (0, band))
    ImageDraw.Draw(sheet).text((indent, 2), shorten(text, font, image.width - indent), TEXT, font)
    return sheet


def stack(images: Sequence[Image.Image], *, title: str = "") -> Image.Image:
    """Draw images below each other.

    Args:
        images: At least one.
        title: Text above all of them; none if empty.
    """
    width = max(image.width for image in images)
    sheet = Image.new("RGB", (width, sum(image.height for image in images)), BACKGROUND)
    top = 0
    for image in images:
        sheet.paste(image.convert("RGB"), (0, top))
        top += image.height
    return add_title(sheet, title, font_size=17, indent=_GAP) if title else sheet


def data_uri(content: Image.Image | bytes, mime: str = "image/png") -> str:
    """Return an address that holds its own content.

    Args:
        content: An image, which is encoded here, or the bytes of a file.
        mime: Media type; for an image one of ``image/png``, ``image/jpeg`` and ``image/webp``.

    Example:
        >>> data_uri(b"hi", "text/plain")
        'data:text/plain;base64,aGk='
    """
    if isinstance(content, Image.Image):
        buffer = io.BytesIO()
        options: dict[str, Any] = {"optimize": True} if mime == "image/png" else {"quality": 88}
        content.save(buffer, format=mime.removeprefix("image/").upper(), **options)
        content = buffer.getvalue()
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def escape(text: str) -> str:
    """Return a text as HTML, in an element or a quoted attribute."""
    return html.escape(text, quote=True)


def html_image(content: Image.Image | bytes, caption: str, mime: str = "image/png") -> str:
    """Return an HTML image that holds its own bytes, with its caption as alternative text and tooltip."""
    caption = escape(caption)
    return f'<img src="{data_uri(content, mime)}" alt="{caption}" title="{caption}">'


def json_for_script(value: object) -> str:
    """Return a value as JSON that may stand inside a script element, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # "<" would end the element; the two separators end a line in old JavaScript
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Replace each ``@@NAME@@`` of a template; what comes in is not searched again.

    Args:
        template: Text, usually a page.
        values: Texts by name, escaped as their places need it.

    Raises:
        KeyError: If a name of the template has no value.
    """
    parts = template.split("@@")  # names of what comes in stand at the odd places
    return "".join(values[part] if place % 2 else part for place, part in enumerate(parts))


_STYLE = """
:root { color-scheme: light dark; --text: #1b1c1f; --muted: #6a6d75; --paper: #fff; --panel: #f3f4f6 }
@media (prefers-color-scheme: dark) {
  :root { --text: #f0f0f2; --muted: #a5a8af; --paper: #121214; --panel: #1d1e22 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper);
  max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 4rem }
img, canvas { max-width: 100% }
"""


def html_page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """Return a self-contained HTML page: it asks nothing of any network, and browsers hold it to that.

    Args:
        title: Title of the page, as plain text.
        body: Content, as HTML; escape texts of others with :func:`escape`.
        style: CSS after that of all pages, which defines ``--text``, ``--muted``, ``--paper``, ``--panel``.
        script: JavaScript at the end of the body; put data in with :func:`json_for_script`.
    """
    policy = "default-src 'none'; img-src data: blob:; media-src data:; style-src 'unsafe-inline'"
    if script:
        policy += "; script-src 'unsafe-inline'"
        script = f"<script>\n{_inside(script, 'script')}\n</script>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{_inside(style, 'style')}</style>\n</head>\n"
        f"<body>\n{body}\n{script}</body>\n</html>\n"
    )


def _inside(text: str, element: str) -> str:
    """Keep a text from ending the element that it stands in."""
    return re.sub(rf"</(?={element})", r"<\\/", text, flags=re.IGNORECASE)
