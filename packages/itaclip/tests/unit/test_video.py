# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from common_kernels.runtime.images import ImageError
from itaclip import ITACLIP, ITACLIPConfig, Segmentation
from itaclip.config import VideoOptions
from itaclip.video import Smoother, relabel, segment_video
from PIL import Image

av = pytest.importorskip("av")
SMALL = {"crop": 32, "stride": 32, "resize_short": 32, "pamr_steps": 0, "branches": ("identity",)}
OPTIONS = ("--crop", 32, "--stride", 32, "--resize-short", 32, "--pamr-steps", 0, "--attention.mid-layers=")
OPTIONS += ("--branches", "identity")


@pytest.fixture(scope="module")
def model(tiny_folder):
    config = ITACLIPConfig.preset("itaclip", **SMALL)
    config = replace(config, attention=replace(config.attention, mid_layers=()))
    return ITACLIP.from_pretrained(tiny_folder, preset=config, device="cpu").set_classes(
        ["cat", "dog", "sky"]
    )


def write_video(path, frames):
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(10), options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def clip(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    return write_video(tmp_path / "clip.mp4", [np.roll(first, 2 * step, axis=1) for step in range(6)])


def decode(path):
    with av.open(str(path)) as container:
        return [(float(frame.time), frame.to_image()) for frame in container.decode(video=0)]


def found(scores):
    scores = torch.as_tensor(scores)
    best, labels = scores.max(dim=0)
    names = tuple(f"c{number}" for number in range(len(scores)))
    return Segmentation(labels=labels, probabilities=best, names=names, scores=scores)


def test_video_of_overlays_keeps_frames_and_times(model, clip, tmp_path):
    report = segment_video(model, clip, tmp_path / "out.mp4", labels=tmp_path / "out.npz")
    frames = decode(tmp_path / "out.mp4")
    assert [round(time, 3) for time, _ in frames] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert frames[0][1].width >= 360
    assert (report.frames, report.segmented, report.cuts) == (6, 6, 0)
    assert sum(report.shares.values()) == pytest.approx(1)
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["labels"].shape == (6, 32, 48)
        assert saved["labels"].dtype == np.uint8
        np.testing.assert_allclose(saved["times"], [0, 0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-3)
        assert saved["names"].tolist() == ["cat", "dog", "sky"]
        single = model.predict(decode(clip)[0][1]).labels.numpy()
        np.testing.assert_array_equal(saved["labels"][0], single)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.mp4", "out.mp4", "out.npz"]


def test_frames_between_keep_their_labels(model, clip, tmp_path):
    options = VideoOptions(every=3, smoothing=0, max_frames=5, legend=False)
    calls = []
    report = segment_video(
        model,
        clip,
        tmp_path / "out.mp4",
        options=options,
        labels=tmp_path / "out.npz",
        progress=lambda done, total: calls.append((done, total)),
    )
    assert (report.frames, report.segmented) == (5, 2)
    assert calls == [(number, 5) for number in range(1, 6)]
    with np.load(tmp_path / "out.npz") as saved:
        labels = saved["labels"]
    np.testing.assert_array_equal(labels[0], labels[2])
    np.testing.assert_array_equal(labels[3], labels[4])
    assert decode(tmp_path / "out.mp4")[0][1].size == (48, 32)


def test_smoothing_is_an_exponential_mean():
    config = ITACLIPConfig.preset("itaclip", closing=False)
    frame = Image.new("RGB", (1, 1))
    a, b = found([[[0.9]], [[0.1]]]), found([[[0.3]], [[0.7]]])
    smoother = Smoother(0.75, config)
    assert smoother(frame, a).probabilities.item() == pytest.approx(0.9)
    steadied = smoother(frame, b)
    assert steadied.labels.item() == 0
    assert steadied.probabilities.item() == pytest.approx(0.75 * 0.9 + 0.25 * 0.3)
    assert steadied.scores[1].item() == pytest.approx(0.75 * 0.1 + 0.25 * 0.7)
    assert Smoother(0, config)(frame, b) is b


def test_a_cut_forgets_the_past():
    smoother = Smoother(0.9, ITACLIPConfig.preset("itaclip", closing=False))
    smoother(Image.new("RGB", (4, 4)), found(torch.tensor([0.9, 0.1]).view(2, 1, 1).expand(2, 4, 4)))
    after = found(torch.tensor([0.2, 0.8]).view(2, 1, 1).expand(2, 4, 4))
    assert smoother(Image.new("RGB", (4, 4), "white"), after).labels.unique().tolist() == [1]
    assert smoother.cuts == 1


def test_rules_hold_for_smoothed_probabilities():
    scores = torch.tensor([[[0.1, 0.1, 0.3]], [[0.7, 0.15, 0.2]], [[0.2, 0.1, 0.9]]])
    before = Segmentation(
        labels=torch.zeros(1, 3, dtype=torch.int64),
        probabilities=scores[0],
        names=("bg", "a", "b"),
        background=True,
    )
    config = ITACLIPConfig.preset("itaclip", closing=False, prob_threshold=0.2)
    assert relabel(before, scores, config).labels.tolist() == [[1, 0, 2]]
    config = ITACLIPConfig.preset("itaclip", closing=False, area_threshold=0.5)
    assert relabel(before, scores, config).labels.tolist() == [[1, 1, 0]]


def test_wrong_input_is_named(model, clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    out = tmp_path / "out.mp4"
    for source, target, labels, reason in [
        (tmp_path / "gone.mp4", out, None, "does not exist"),
        (tmp_path, out, None, "is a folder, not a video"),
        (tmp_path / "text.mp4", out, None, "is not a video that can be read"),
        (clip, tmp_path / "out.avi", None, r"must be an \.mp4 file"),
        (clip, out, tmp_path / "out.npy", r"must be an \.npz file"),
    ]:
        with pytest.raises(ImageError, match=reason):
            segment_video(model, source, target, labels=labels)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.mp4", "text.mp4"]
    with pytest.raises(ValueError, match="smoothing must lie in"):
        VideoOptions(smoothing=1)
    with pytest.raises(ValueError, match=r"opacity must lie in \[0, 1\]"):
        VideoOptions(opacity=1.5)
    with pytest.raises(ValueError, match="must be positive"):
        VideoOptions(every=0)


def test_a_failure_half_way_leaves_nothing(model, clip, tmp_path, monkeypatch):
    seen = []

    def stop(done, total):
        seen.append(done)
        if done == 3:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        segment_video(model, clip, tmp_path / "out.mp4", labels=tmp_path / "out.npz", progress=stop)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.mp4"]


def test_command(clip, tiny_folder, invoke):
    args = ["-c", "cat, dog", "--model", tiny_folder, "--device", "cpu", "--json", *OPTIONS]
    words = ("video", "clip.mp4", "-o", "out.mp4", "--labels", "out.npz")
    found = json.loads(invoke(*words, "--max-frames", 2, *args).stdout)
    assert (found["status"], found["frames"], set(found["outputs"])) == ("done", 2, {"video", "labels"})
    assert json.loads(invoke(*words, "--max-frames", 2, *args).stdout)["status"] == "skipped"
    # other options are another video
    assert json.loads(invoke(*words, *args).stdout)["frames"] == 6
    assert "--output must be an .mp4" in invoke("video", "clip.mp4", "-o", "out.avi", *args, code=2).stderr
    same = invoke("video", "clip.mp4", "-o", "clip.mp4", "--overwrite", *args, code=2)
    assert "is the video itself" in same.stderr
    Path("bad.mp4").write_text("no video")
    failed = json.loads(invoke("video", "bad.mp4", "-o", "other.mp4", *args, code=1).stdout)
    assert failed["status"] == "failed"
    assert not Path("other.mp4").exists()
