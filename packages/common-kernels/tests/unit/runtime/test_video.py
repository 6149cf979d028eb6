# SPDX-License-Identifier: Apache-2.0
import io
import os
import stat
import struct
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from common_kernels.runtime.files import write_text
from common_kernels.runtime.images import ImageError, write_image
from common_kernels.runtime.video import (
    Frame,
    VideoError,
    VideoLimits,
    encode_video,
    equally_spaced,
    is_video,
    open_video,
    read_video,
    write_video,
)
from common_kernels.runtime.video.container import open_container
from PIL import Image

av = pytest.importorskip("av")


def moving(count, height=32, width=48):
    """Frames whose brightness tells their number: 16 + 4 * number."""
    frames = np.zeros((count, height, width, 3), dtype=np.uint8)
    for number in range(count):
        frames[number] = 16 + 4 * number % 224
    return frames


def numbers(video):
    """The numbers of frames of ``moving``, from their brightness."""
    means = video.frames.reshape(len(video.frames), -1).mean(axis=1)
    return np.rint((means - 16) / 4).astype(int).tolist()


def mux(path, times, *, codec="libx264", clock=1000, size=(48, 32), gop=12, container=None, **options):
    """A file of PyAV's own, with frames at these times; their brightness tells their number."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.time_base = stream.codec_context.time_base = Fraction(1, clock)
        for number, (time, pixels) in enumerate(zip(times, moving(len(times), *size[::-1]), strict=True)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * clock), Fraction(1, clock)
            if number % gop == 0:
                frame.pict_type = av.video.frame.PictureType.I
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("fps", [8, 25.0, Fraction(30000, 1001)])
def test_what_is_written_is_read(tmp_path, suffix, fps):
    frames = moving(9)
    frames[:, 8:24, 8:24] = 214, 40, 40
    encoder = write_video(tmp_path / f"a{suffix}", frames, fps)
    assert encoder == ("gif" if suffix == ".gif" else "libx264")
    video = read_video(tmp_path / f"a{suffix}")
    assert (video.size, video.indices, video.num_source_frames) == ((32, 48), tuple(range(9)), 9)
    assert np.abs(video.frames.astype(int) - frames).mean() < 3
    assert np.abs(video.frames[:, 16, 16].astype(int) - (214, 40, 40)).max() < 8
    # a GIF counts hundredths of seconds
    assert video.fps == pytest.approx(float(fps), rel=0.04 if suffix == ".gif" else 1e-9)
    assert video.duration == pytest.approx(9 / float(fps), abs=0.03)
    assert video.sampled_fps == video.fps


def test_an_mp4_plays_everywhere(tmp_path):
    write_video(tmp_path / "a.mp4", moving(3, 33, 47), 10)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", 48, 34)
    # the edge is repeated: no dark line
    assert read_video(tmp_path / "a.mp4").frames[0, -1, -1].mean() == pytest.approx(16, abs=3)


def test_identical_frames_of_a_gif_stay():
    still = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    video = read_video(encode_video(still, 10, ".gif"))
    assert (len(video.frames), video.duration) == (4, pytest.approx(0.4))


def test_frames_with_times_keep_them(tmp_path):
    times = (0.0, 0.1, 0.5, 0.54, 2.0)
    for suffix in (".mp4", ".gif"):
        timed = (Frame(pixels, time) for pixels, time in zip(moving(5), times, strict=True))
        write_video(tmp_path / f"a{suffix}", timed, 10)
        assert read_video(tmp_path / f"a{suffix}").timestamps == pytest.approx(times, abs=0.006)


def test_a_gif_leaves_out_what_it_cannot_show():
    video = read_video(encode_video(moving(20), 100, ".gif"))
    assert (len(video.frames), video.fps) == (10, pytest.approx(50))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mov", {}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"}),
        ("a.avi", {"codec": "mpeg4", "clock": 10, "qmin": "1", "qmax": "1"}),
        ("a.ts", {"container": "mpegts", "clock": 90000}),
    ],
)
def test_containers(tmp_path, name, options):
    path = mux(tmp_path / name, [number / 10 for number in range(30)], **options)
    assert is_video(path)
    video = read_video(path)
    assert numbers(video) == list(range(30))
    assert (video.fps, video.duration) == (pytest.approx(10, rel=0.01), pytest.approx(3, abs=0.02))
    # jumps give the same frames, from a file and from memory
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        chosen = read_video(source, frames=4)
        assert chosen.indices == (0, 9, 19, 29)
        assert numbers(chosen) == [0, 9, 19, 29]
        assert chosen.sampled_fps == pytest.approx(3 / 2.9)
    # contents count, not the name
    (tmp_path / "odd.png").write_bytes(path.read_bytes())
    assert read_video(tmp_path / "odd.png", frames=1).size == (32, 48)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animated_images(kind):
    images, file = [Image.fromarray(pixels) for pixels in moving(5)], io.BytesIO()
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=200, lossless=True)
    video = read_video(file.getvalue(), frames=3)
    assert (numbers(video), video.indices, video.num_source_frames) == ([0, 2, 4], (0, 2, 4), 5)
    assert (video.fps, video.duration) == (pytest.approx(5), pytest.approx(1))
    assert video.timestamps == pytest.approx((0, 0.4, 0.8))


def test_sampling_rules(tmp_path):
    path = mux(tmp_path / "a.mp4", [number / 10 for number in range(24)])
    assert equally_spaced(100, 8) == [0, 14, 28, 42, 56, 70, 84, 99]
    assert equally_spaced(3, 8) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert read_video(path, frames=1).indices == (0,)
    assert read_video(path, frames=30).indices == tuple(equally_spaced(24, 30))
    assert read_video(path, fps=2).indices == (0, 5, 10, 15, 20)
    assert numbers(read_video(path, fps=4)) == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    assert len(read_video(path, fps=20).indices) == 47  # a rate above that of the video repeats frames
    with pytest.raises(ValueError, match="by frames or by fps, got both"):
        read_video(path, frames=2, fps=2)
    for options in ({"frames": 0}, {"fps": 0}, {"fps": float("nan")}, {"fps": float("inf")}):
        with pytest.raises(ValueError, match="must be above 0"):
            read_video(path, **options)
    with pytest.raises(ValueError, match="at least 1"):
        equally_spaced(0, 1)
    with open_video(path) as video:
        assert [round(frame.time, 3) for frame in video] == [number / 10 for number in range(24)]
        for indices in ([], [1, 0], [24], [-1, 2]):
            with pytest.raises(ValueError, match="must ascend within 24 frames"):
                video.read(indices)


def test_variable_frame_rate(tmp_path):
    times = [0, 0.02, 0.04, 0.06, 1.0, 1.5, 3.0, 3.04]
    path = mux(tmp_path / "a.mp4", times, gop=3)
    video = read_video(path)
    assert video.timestamps == pytest.approx(times, abs=0.002)
    assert numbers(read_video(path, fps=1)) == [0, 4, 5, 6]
    assert numbers(read_video(path, frames=3)) == [0, 3, 7]


def turned(content, matrix):
    data = bytearray(content)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *matrix)
    return bytes(data)


def test_a_turned_video_is_upright():
    one, frames = 1 << 16, np.zeros((3, 32, 48, 3), dtype=np.uint8)
    frames[:, :8, :16] = 255
    content = encode_video(frames, 10)
    right = read_video(turned(content, (0, one, 0, -one, 0, 0, 32 * one, 0, 1 << 30)))
    assert right.size == (48, 32)
    assert np.abs(right.frames.astype(int) - np.rot90(frames, -1, (1, 2))).mean() < 2
    round_about = read_video(turned(content, (-one, 0, 0, 0, -one, 0, 48 * one, 32 * one, 1 << 30)))
    assert np.abs(round_about.frames.astype(int) - np.rot90(frames, 2, (1, 2))).mean() < 2


def test_two_hours_are_sampled_by_jumps(tmp_path):
    """7,200 frames with a key frame every 240: no more is decoded than lies between."""
    path = mux(tmp_path / "long.mp4", range(7200), size=(16, 16), gop=240, preset="ultrafast")
    limits = VideoLimits(max_decoded=8 * 240)
    video = read_video(path, frames=8, limits=limits)
    assert video.indices == tuple(equally_spaced(7200, 8))
    assert video.duration == pytest.approx(7200)
    assert numbers(video) == [index % 56 for index in video.indices]
    with pytest.raises(VideoError, match="has 7200 frames, more than 512"):
        read_video(path)
    with pytest.raises(VideoError, match="has 7200 frames, more than 512"):
        read_video(path, fps=1)
    with pytest.raises(VideoError, match="has too few key frames: more than 100 frames"):
        read_video(path, frames=8, limits=VideoLimits(max_decoded=100))
    with open_video(path, limits=VideoLimits(max_decoded=10)) as whole:
        assert sum(1 for _ in whole) == 7200  # nothing is decoded in vain
    with pytest.raises(VideoError, match=r"lasts 7199 s, more than 3600 s"):
        read_video(path, frames=8, limits=VideoLimits(max_seconds=3600))


def test_limits(tmp_path):
    for suffix in (".mp4", ".gif"):
        path = tmp_path / f"a{suffix}"
        write_video(path, moving(6), 10)
        with pytest.raises(VideoError, match=f"a{suffix} has 6 frames, more than 5"):
            read_video(path, limits=VideoLimits(max_frames=5))
        with pytest.raises(VideoError, match="has 6 x 48 x 32 pixels, more than 9000"):
            read_video(path, limits=VideoLimits(max_pixels=9000))
        with pytest.raises(ImageError, match="claims 48 x 32 pixels, more than 900"):
            read_video(path, limits=VideoLimits(max_pixels=900))
        with pytest.raises(VideoError, match="lasts 1 s, more than 0 s"):
            read_video(path, limits=VideoLimits(max_seconds=0.2))
        assert len(read_video(path, frames=5, limits=VideoLimits(max_frames=5)).frames) == 5
    with pytest.raises(ValueError, match="max_frames must be above 0, got 0"):
        VideoLimits(max_frames=0)


def test_bad_files(tmp_path):
    write_video(tmp_path / "good.mp4", moving(12), 10)
    good = (tmp_path / "good.mp4").read_bytes()
    mux(tmp_path / "good.mkv", [number / 10 for number in range(30)])
    (tmp_path / "folder.mp4").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "still.gif")
    cases = {
        "text.mp4": (b"no video", "is not a video that can be read"),
        "empty.mp4": (b"", "is empty"),
        "list.m3u8": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "is not a video that can be read"),
        "short.mp4": (good[: len(good) * 3 // 4], "damaged or cut short"),
        "shorter.mp4": (good[:200], "has no video stream"),
        "head.mp4": (b"\0\0\0\x1cftypisom" + b"junk" * 99, "damaged"),
        "short.mkv": ((tmp_path / "good.mkv").read_bytes()[:1500], "damaged or cut short"),
        "noise.mkv": (b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 9, "damaged"),
        "missing.mp4": (None, "does not exist"),
        "folder.mp4": (None, "is a folder, not a video"),
        "still.gif": (None, "is a still image, not a video"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=message) as caught:
            read_video(tmp_path / name, frames=8)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_texts_of_any_bytes_do_not_stop_a_video(tmp_path):
    pixels = av.VideoFrame.from_ndarray(moving(1)[0], format="rgb24")
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        out.metadata["title"] = "a title"
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        out.mux(stream.encode(pixels))
        out.mux(stream.encode())
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content.replace(b"a title", b"\xe9\xff\xfetle\x80"))
    assert read_video(tmp_path / "a.mkv").size == (32, 48)


@pytest.mark.parametrize(
    ("version", "options"), [("18.1.0", {"metadata_errors": "ignore"}), ("19.0.2", {}), ("20.1", {})]
)
def test_versions_of_pyav_are_opened_with_options_that_they_have(version, options):
    fake = SimpleNamespace(__version__=version, open=lambda file, **given: (file, given))
    assert open_container(fake, b"file", "mp4") == (b"file", {"format": "mp4"} | options)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(VideoError, match="has no video stream"):
        read_video(tmp_path / "a.mp4")


def test_what_is_a_video(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "still.png")
    pages = [Image.new("L", (8, 8), number) for number in (0, 99)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert not is_video(tmp_path / "still.png")
    assert not is_video(tmp_path / "pages.tif")
    assert is_video(encode_video(moving(2), 10, ".gif"))
    with pytest.raises(ImageError, match="the video is not an image"):
        is_video(b"neither")


def test_frames_that_cannot_be_written(tmp_path):
    good = moving(2)
    cases = [
        ([], "at least one frame"),
        ([good[0].astype(float)], "uint8, got"),
        ([good[0, ..., 0]], r"\(H, W, 3\)"),
        ([good[0], good[1, :-2]], "one size"),
    ]
    for frames, message in cases:
        with pytest.raises(VideoError, match=message):
            write_video(tmp_path / "a.mp4", frames, 10)
    for name, fps, crf, message in [
        ("a.avi", 10, 18, "no known video suffix: choose one of .gif, .mp4"),
        ("a.mp4", 0, 18, "fps must lie"),
        ("a.mp4", 10, 52, "crf must lie"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_video(tmp_path / name, good, fps, crf=crf)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing(tmp_path):
    def stop():
        yield from moving(3)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_video(tmp_path / "a.mp4", stop(), 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_files_have_the_umask_of_the_user(tmp_path):
    before = os.umask(0o027)
    try:
        write_video(tmp_path / "a.mp4", moving(2), 10)
        write_video(tmp_path / "a.gif", moving(2), 10)
        write_image(moving(1)[0], tmp_path / "a.png")
        write_text(tmp_path / "a.txt", "a")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("a.mp4", "a.gif", "a.png", "a.txt"), 0o640)


def test_pyav_is_imported_when_it_is_needed(monkeypatch):
    code = "import sys, common_kernels.runtime.video as video; video.is_video; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'pip install "common-kernels\[video\]"'):
        encode_video(moving(1), 10)
