# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from common_kernels.runtime.video import encode_video
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from vitron.data.files import read_example, read_samples, safe_path, write_samples
from vitron.data.schema import MaskTarget, Sample, SampleMedia, SampleRegion, Targets
from vitron.errors import DataError
from vitron.protocol.contract import BoxRegion, ReferenceRegion
from vitron.protocol.regions import mask_to_region


def line(**changes):
    message = {"role": "user", "content": [{"type": "media", "media": 0}, {"type": "text", "text": "hi"}]}
    return {"id": "a", "task": "t", "messages": [message], "media": [{"path": "a.png"}]} | changes


def write(folder, *lines):
    Image.new("RGB", (6, 4)).save(folder / "a.png")
    (folder / "data.jsonl").write_text("\n".join(json.dumps(each) for each in lines), "utf-8")
    return folder


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../a.png", "x/../../a.png", "C:/a.png", "C:\\a.png", "..\\a.png", "a\0.png", "//h/a"],
)
def test_a_path_stays_inside(tmp_path, path):
    with pytest.raises(DataError, match="must be relative and stay inside"):
        safe_path(tmp_path, path)


def test_a_link_that_leads_out_is_refused(tmp_path):
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "out").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads out of the data folder"):
        safe_path(inside, "out/secret.png")
    assert safe_path(inside, "a; b'c.png") == inside / "a; b'c.png"


@given(st.text(max_size=30))
def test_no_path_ever_leads_out(tmp_path_factory, path):
    root = tmp_path_factory.getbasetemp()
    try:
        place = safe_path(root, path)
    except (DataError, OSError, ValueError):
        return
    assert place.resolve().is_relative_to(root.resolve())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "line 2: id: String should have at least 1 character"),
        ({"media": []}, "line 2: a message names medium 0, and there are 0"),
        ({"colour": 3}, "line 2: colour: Extra inputs"),
        ({"targets": {"masks": [{"call": 0}]}}, "line 2: a mask belongs to call 0, and there are 0"),
        (
            {"regions": [{"media": 4, "region": {"kind": "box", "x0": 0, "y0": 0, "x1": 1, "y1": 1}}]},
            "medium 4",
        ),
        ({"media": [{"path": ["a.png"]}]}, "an image is one file"),
        ({"media": [{"type": "video", "path": []}]}, "at least one frame"),
    ],
)
def test_a_wrong_line_is_told_by_its_number(tmp_path, changes, message):
    folder = write(tmp_path, line(id="first"), line(**changes))
    with pytest.raises(DataError, match=message):
        list(read_samples(folder))
    errors = []
    assert len(list(read_samples(folder, on_error=errors.append))) == 1
    assert len(errors) == 1


def test_broken_lines_and_doubled_ids(tmp_path):
    write(tmp_path, line(), line())
    with pytest.raises(DataError, match=r"data\.jsonl, line 2: line 1 has the same id 'a'"):
        list(read_samples(tmp_path))
    (tmp_path / "data.jsonl").write_text("\n{", "utf-8")
    with pytest.raises(DataError, match="line 2: Invalid JSON"):
        list(read_samples(tmp_path))
    (tmp_path / "data.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        list(read_samples(tmp_path))
    with pytest.raises(DataError, match="lost does not exist: give a folder"):
        list(read_samples(tmp_path / "lost"))


def test_media_are_read_only_from_the_folder(tmp_path):
    folder = write(tmp_path, line(media=[{"path": "../a.png"}]))
    ((_, sample),) = read_samples(folder)
    with pytest.raises(DataError, match="stay inside"):
        read_example(sample, folder)
    with pytest.raises(DataError, match=r"a: .*lost\.png does not exist"):
        read_example(sample.model_copy(update={"media": (SampleMedia(path="lost.png"),)}), folder)


def test_masks_and_regions_must_fit(tmp_path):
    folder = write(tmp_path, line())
    ((_, sample),) = read_samples(folder)
    call = {"module": "image_segmentation", "instruction": [{"text": "x"}]}
    with_call = Sample.model_validate(
        line(messages=[*line()["messages"], {"role": "assistant", "calls": [call]}])
    )
    small = MaskTarget(masks=(mask_to_region(np.ones((2, 2), dtype=bool)),))
    with pytest.raises(DataError, match=r"a mask of \(2, 2\) for frame 0 does not fit \(4, 6\)"):
        read_example(with_call.model_copy(update={"targets": Targets(masks=(small,))}), folder)
    late = SampleRegion(region=BoxRegion(x0=0, y0=0, x1=1, y1=1, frame=3))
    with pytest.raises(DataError, match="medium 0 has 1 frames, and frame 3 is not one"):
        read_example(sample.model_copy(update={"regions": (late,)}), folder)
    with pytest.raises(ValidationError, match="write the mask itself"):
        SampleRegion(region=ReferenceRegion(name="mask_1"))


def test_frames_of_a_video(tmp_path):
    for at in range(4):
        Image.new("RGB", (6, 4 + (at == 3)), (at, 0, 0)).save(tmp_path / f"{at}.png")
    media = SampleMedia(type="video", path=tuple(f"{at}.png" for at in range(4)), frames=(1, 2))
    sample = Sample.model_validate(line()).model_copy(update={"media": (media,)})
    assert [int(frame[0, 0, 0]) for frame in read_example(sample, tmp_path).media[0].frames] == [1, 2]
    uneven = sample.model_copy(update={"media": (media.model_copy(update={"frames": None}),)})
    with pytest.raises(DataError, match=r"one size, and 3\.png has another"):
        read_example(uneven, tmp_path)


def test_writing_needs_the_files(tmp_path):
    sample = Sample.model_validate(line())
    with pytest.raises(DataError, match=r"a\.png does not exist"):
        write_samples([sample], tmp_path / "out", source=tmp_path)
    assert write_samples([sample], tmp_path / "out") == 1


def write_video(folder, count=600, fps=20):
    """Write a video whose frames get brighter, and a line about it."""
    frames = [np.full((16, 16, 3), 20 + at // 4, np.uint8) for at in range(count)]
    (folder / "long.mp4").write_bytes(encode_video(frames, fps, ".mp4"))
    return line(media=[{"type": "video", "path": "long.mp4"}])


def test_a_video_keeps_its_frame_rate(tmp_path):
    write(tmp_path, write_video(tmp_path, 12))
    media = read_example(next(read_samples(tmp_path))[1], tmp_path).media[0]
    assert media.num_frames == 12
    assert media.fps == pytest.approx(20)


def test_a_part_of_a_long_video_is_read_by_its_own_frames(tmp_path):
    """Not by those of the 64 that would be kept of the whole."""
    found = write_video(tmp_path)
    found["media"][0]["frames"] = [200, 209]
    write(tmp_path, found)
    media = read_example(next(read_samples(tmp_path))[1], tmp_path).media[0]
    assert media.num_frames == 10
    assert media.data[:, 8, 8, 0].mean() == pytest.approx(20 + 204.5 / 4, abs=5)
    found["media"][0]["frames"] = [600, 610]
    write(tmp_path, found)
    with pytest.raises(DataError, match="has 600 frames, and frame 600 is not one of them"):
        read_example(next(read_samples(tmp_path))[1], tmp_path)


def test_frame_numbers_on_a_video_that_is_read_in_part_are_refused(tmp_path):
    found = write_video(tmp_path)
    write(tmp_path, found)
    assert read_example(next(read_samples(tmp_path))[1], tmp_path).media[0].note == "64 of 600 frames"
    write(tmp_path, found | {"targets": {"span": [100, 200]}})
    with pytest.raises(DataError, match="64 of 600 frames are used, and its targets or regions name frames"):
        read_example(next(read_samples(tmp_path))[1], tmp_path)
