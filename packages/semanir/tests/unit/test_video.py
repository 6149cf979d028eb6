# SPDX-License-Identifier: Apache-2.0
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from common_kernels.runtime.images import ImageError, write_image
from common_kernels.runtime.video import Frame, Sound, open_video, write_video
from semanir import RestoreOptions, Restorer, SemanIR, SemanIRConfig
from semanir.cli import app
from semanir.options import VideoOptions
from semanir.restoring import video as module

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    changes = {"embed_dims": (8, 8), "num_heads": (1, 1), "depths": (1, 1, 1, 1)}
    changes |= {"window_size": 4, "k": 6, "conv_blocks": ()}
    return SemanIR(SemanIRConfig.preset("tiny", **changes))


def frames(count=6, height=32, width=48):
    rng = np.random.default_rng(0)
    still = rng.integers(60, 200, (height, width, 3))
    return [(still + rng.integers(-20, 20, still.shape)).astype(np.uint8) for _ in range(count)]


def write_with_sound(path, codec="aac", count=6):
    """A video of a second and a half, with a tone."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=Fraction(4))
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        audio = out.add_stream(codec, rate=48000)
        for pixels in frames(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
        for number in range(12 * count):
            tone = np.sin(np.arange(1000 * number, 1000 * (number + 1)) * 0.05).astype(np.float32)
            kind = "s16" if codec.startswith("pcm") else "fltp"
            values = (tone * 9000).astype(np.int16) if kind == "s16" else tone
            sound = av.AudioFrame.from_ndarray(values[None], format=kind, layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 48000, 1000 * number, Fraction(1, 48000)
            out.mux(audio.encode(sound))
        out.mux(audio.encode())
    return path


def capture(monkeypatch):
    """Keep the frames that are written."""
    kept, write = [], module.write_video

    def spy(path, written, *args, **options):
        written = list(written)
        kept.extend(written)
        return write(path, written, *args, **options)

    monkeypatch.setattr(module, "write_video", spy)
    return kept


def test_frames_rate_and_sound_stay(network, tmp_path):
    source, target = write_with_sound(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    calls = []
    report = Restorer(network).restore_video(source, target, progress=lambda *pair: calls.append(pair))
    assert (report.width, report.height, report.frames, report.fps) == (48, 32, 6, 4)
    assert calls == [(n, 6) for n in range(1, 7)]
    with open_video(target) as video:
        assert (video.num_frames, video.size, video.fps) == (6, (32, 48), 4)
    packets = []
    for path in (source, target):
        with Sound(path) as sound:
            assert sound.codec == "aac"
        with av.open(str(path)) as opened:
            packets.append([bytes(p) for p in opened.demux(opened.streams.audio[0]) if p.size])
    assert len(packets[1]) >= 0.95 * len(packets[0])
    assert set(packets[1]) <= set(packets[0])  # copied, not encoded again
    Restorer(network).restore_video(source, target, video=VideoOptions(sound=False))
    with Sound(target) as sound:
        assert sound.codec == ""


def test_sound_that_cannot_be_copied_is_told(network, tmp_path):
    source = write_with_sound(tmp_path / "a.mkv", "pcm_s16le")
    report = Restorer(network).restore_video(source, tmp_path / "b.mp4")
    assert "its sound (pcm_s16le) is not one that an MP4 holds as it is: left out" in report.note


def test_frames_alone_are_those_of_restore(network, tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", [Frame(f, t) for f, t in zip(frames(3), (0, 0.1, 0.5), strict=True)], 10)
    kept = capture(monkeypatch)
    options = RestoreOptions(strength=0.7)
    report = Restorer(network, batch_size=2).restore_video(
        tmp_path / "a.mp4", tmp_path / "b.mp4", options, video=VideoOptions(temporal=0)
    )
    with open_video(tmp_path / "a.mp4") as video:
        before = list(video)
    restorer = Restorer(network)
    changes = []
    for found, frame in zip(kept, before, strict=True):
        np.testing.assert_array_equal(found.pixels, restorer.restore(frame.pixels, options))
        real = frame.pixels.astype(np.float32) / 255
        changes.append(((restorer.restore(real, options) - real) ** 2).mean())
        assert found.time == frame.time
    assert [frame.time for frame in before] == pytest.approx([0, 0.1, 0.5], abs=1e-3)
    assert report.change == pytest.approx(255 * np.mean(changes) ** 0.5, rel=1e-3)


def test_frames_agree_with_those_before_them(network, tmp_path, monkeypatch):
    write_video(tmp_path / "a.gif", frames(5), 10)
    kept = capture(monkeypatch)
    for weight in (0, 0.7):
        Restorer(network).restore_video(
            tmp_path / "a.gif", tmp_path / "b.gif", video=VideoOptions(temporal=weight)
        )
    stacks = [np.stack([f.pixels for f in part]).astype(float) for part in (kept[:5], kept[5:])]
    alone, together = (np.diff(stack, axis=0).std() for stack in stacks)
    assert together < alone
    with open_video(tmp_path / "b.gif") as video:
        assert video.num_frames == 5


def test_a_video_that_enlarges(tmp_path):
    changes = {"embed_dims": (8,), "num_heads": (1,), "depths": (1, 1), "window_size": 4, "k": 6}
    network = SemanIR(SemanIRConfig.preset("sr-small", upscale=2, **changes))
    write_video(tmp_path / "a.gif", frames(2), 10)
    report = Restorer(network).restore_video(tmp_path / "a.gif", tmp_path / "b.mp4")
    assert (report.width, report.height, report.change) == (96, 64, None)
    with open_video(tmp_path / "b.mp4") as video:
        assert video.size == (64, 96)


@pytest.mark.parametrize(
    ("options", "match"), [({"temporal": 1}, "temporal must lie"), ({"crf": 60}, "crf must lie")]
)
def test_options_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        VideoOptions(**options)


def test_still_images_are_no_videos(network, tmp_path):
    write_image(frames(1)[0], tmp_path / "a.png")
    with pytest.raises(ImageError, match="still image, not a video"):
        Restorer(network).restore_video(tmp_path / "a.png", tmp_path / "b.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_the_command_takes_videos(network, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    network.save_pretrained("model")
    write_video("a.mp4", frames(3), 10)
    Path("in").mkdir()
    write_video("in/b.mp4", frames(2), 10)
    write_image(frames(1)[0], "in/c.png")

    def run(*arguments, code=0):
        capfd.readouterr()
        found = run_app(app, ["restore", *arguments, "--model", "model", "--device", "cpu"])
        out, err = capfd.readouterr()
        assert found == code, out + err
        return out, err

    out, _ = run("a.mp4", "-o", "b.mp4", "--json")
    report = json.loads(out)
    assert (report["status"], report["frames"], report["fps"]) == ("done", 3, 10)
    assert json.loads(run("a.mp4", "-o", "b.mp4", "--json")[0])["status"] == "skipped"
    assert json.loads(run("a.mp4", "-o", "b.mp4", "--json", "--temporal", "0")[0])["status"] == "done"
    _, err = run("in", "-o", "out")
    assert "in: left out, of a kind that is not read from folders: b.mp4" in err
    assert sorted(file.name for file in Path("out").glob("*.*")) == [".results", "c.png"]
    run("in/b.mp4", "in/c.png", "-o", "both")
    assert sorted(file.name for file in Path("both").glob("[!.]*")) == ["b.mp4", "c.png"]
    assert "--compare is for images" in run("a.mp4", "-o", "c.mp4", "--compare", code=2)[1]
    assert "a.mp4 is a video: name an .mp4 or .gif file" in run("a.mp4", "-o", "c.png", code=1)[1]
    assert "c.png is a still image" in run("in/c.png", "-o", "c.mp4", code=1)[1]
