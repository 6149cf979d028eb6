# SPDX-License-Identifier: Apache-2.0
"""What the tests of vitron share."""

import base64
import io
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from common_kernels.runtime.cli import run_app
from PIL import Image
from vitron import escape
from vitron.cli import app
from vitron.demo.painters import toy_registry
from vitron.demo.scripted import SCENE, draw
from vitron.protocol.media import Artefact, encode
from vitron.protocol.messages import MessageChunk
from vitron.protocol.regions import format_region, mask_to_box


def call(module, said, region=""):
    place = f" <region>{region}</region>" if region else ""
    return f"<module>{module}</module> <instruction>{said}</instruction>{place}"


class ScriptedGenerator:
    """Stands in for a model: rules over the last words, given out three characters at a time.

    It writes what it repeats of a user through ``escape``, as a model has to.
    """

    why_single = None  # messages may be generated together
    notice = None

    def __init__(self, *, pause=0.0, context_length=None):
        self.pause = pause
        self.context_length = context_length
        self.seen = []
        self.at_once = self.most_at_once = self.written = self.closed = 0
        self.lock = threading.Lock()

    def count_tokens(self, messages, media):
        return sum(len(message.text.split()) for message in messages)

    def stream(self, messages, media, regions, sampling):
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.seen.append((tuple(messages), tuple(media), tuple(regions), sampling))
        try:
            reply = self.answer(messages, media, regions)
            for start in range(0, len(reply), 3):
                if self.pause:
                    time.sleep(self.pause)
                yield MessageChunk(reply[start : start + 3])
                self.written += 1
        finally:
            with self.lock:
                self.at_once -= 1
                self.closed += 1

    def answer(self, messages, media, regions):
        words = messages[-1].text
        if words.startswith("raw "):  # a model that says just this
            return words[4:]
        if words == "everything":
            said = [message.text for message in messages if message.role == "user"]
            return escape(" | ".join(said))
        if words == "break":
            raise RuntimeError("secret of the house")
        if words.startswith("draw"):
            return "Here it is. " + call("A", f"draw: {escape(words[4:].strip())}")
        if words.startswith("mark"):
            return "I mark it. " + call("B", f"segment: {escape(words[4:].strip())}")
        if words.startswith("track"):
            return "I follow it. " + call("E", f"track: {escape(words[5:].strip())}")
        if words.startswith("make") and regions:
            box = format_region(mask_to_box(regions[-1].mask))
            return "I change it. " + call("C", f"recolour: {escape(words[4:].strip())}", box)
        if words.startswith("look"):
            images = [each.frames for each in media if each.kind != "masks"]
            colours = [tuple(int(each) for each in frames[0, 0, 0]) for frames in images]
            boxes = [format_region(mask_to_box(region.mask)) for region in regions]
            return f"I see {len(media)} media {colours} and {len(regions)} regions {boxes}."
        return f"You said {len(messages)}: " + escape(words)


def as_url(content, mime="image/png"):
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def as_file(*frames):
    """A PNG of one frame, a GIF of several."""
    buffer, images = io.BytesIO(), [Image.fromarray(np.asarray(frame, dtype=np.uint8)) for frame in frames]
    if len(images) == 1:
        images[0].save(buffer, format="PNG")
    else:
        images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=100)
    return buffer.getvalue()


@pytest.fixture
def specialists():
    return toy_registry()


@pytest.fixture
def generator():
    return ScriptedGenerator()


@pytest.fixture(scope="session")
def scripted():
    return ScriptedGenerator


@pytest.fixture(scope="session")
def scene():
    """A red circle, a blue square and a yellow star, as the bytes of a PNG."""
    return as_file(draw(*SCENE))


@pytest.fixture(scope="session")
def video():
    """A red circle that moves to the right, as the bytes of a GIF."""
    return as_file(*(draw(("circle", "red", 10, 4 + 8 * index, 30)) for index in range(4)))


@pytest.fixture(scope="session")
def mp4():
    """A red circle that moves to the right, as the bytes of an MP4 of 10 frames a second."""
    frames = np.stack([draw(("circle", "red", 10, 4 + 8 * index, 30)) for index in range(4)])
    return encode(Artefact("video", frames, fps=10.0))[0]


@pytest.fixture(scope="session")
def image_url():
    return lambda *frames: as_url(as_file(*frames), "image/png" if len(frames) == 1 else "image/gif")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Call vitron in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*args, code=0, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        found = run_app(app, list(map(str, args)))
        shown = capsys.readouterr()
        assert found == code, shown.err + shown.out
        assert "Traceback" not in shown.err
        assert list(tmp_path.rglob("*.part*")) == []
        return SimpleNamespace(out=shown.out, err=shown.err)

    return call


@pytest.fixture
def sentence():
    """Return the one line on stderr, with nothing on stdout."""

    def of(shown):
        assert shown.out == ""
        (line,) = shown.err.strip().splitlines()
        assert line.startswith("vitron: ")
        return line

    return of
