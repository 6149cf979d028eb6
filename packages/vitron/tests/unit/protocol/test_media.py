# SPDX-License-Identifier: Apache-2.0
import ast
from pathlib import Path

import numpy as np
import pytest
import tifffile
import vitron
from PIL import Image
from vitron.errors import MediaError
from vitron.protocol.media import (
    FPS,
    SAMPLED_FRAMES,
    Artefact,
    decode_media,
    encode,
    overlay,
    read_media,
    write_media,
)

PICTURE = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
CLIP = np.repeat(np.array([0, 128, 255], dtype=np.uint8), 6 * 8 * 3).reshape(3, 6, 8, 3)
MASKS = np.zeros((2, 1, 6, 8), dtype=bool)
MASKS[0, 0, :3], MASKS[1, 0, 3:, :2] = True, True


@pytest.mark.parametrize(("video_format", "error"), [("mp4", 4), ("gif", 0)])
def test_images_and_videos_survive_the_disk(tmp_path, video_format, error):
    path = write_media(Artefact("image", PICTURE), tmp_path / "new", "img_1")
    assert path.name == "img_1.png"
    assert np.array_equal(read_media(path).data, PICTURE)
    made = Artefact("video", CLIP, fps=12.5)
    path = write_media(made, tmp_path, "vid_1", video_format=video_format)
    assert path.name == f"vid_1.{video_format}"
    for video in (read_media(path), decode_media(encode(made, video_format)[0])):
        assert (video.kind, video.num_frames, video.size, video.note) == ("video", 3, (6, 8), "")
        assert np.abs(video.data.astype(int) - CLIP).max() <= error
        assert video.fps == pytest.approx(12.5)
    masks = read_media(write_media(Artefact("masks", MASKS, ("a", "b")), tmp_path, "mask_1"))
    assert np.array_equal(masks.data[..., 0] == 255, MASKS.any(axis=(0, 1)))
    assert list(tmp_path.rglob("*.part")) == []


def test_masks_of_a_video_are_a_video(tmp_path):
    masks = np.zeros((1, 3, 16, 24), dtype=bool)
    for frame in range(3):
        masks[0, frame, 4:12, 4 + 4 * frame : 10 + 4 * frame] = True
    path = write_media(Artefact("masks", masks, ("a",)), tmp_path, "mask_1")
    assert path.suffix == ".mp4"
    found = read_media(path)
    assert np.array_equal(found.data[..., 1] > 127, masks[0])
    assert found.fps == FPS
    # one frame in a file for videos is a video
    path = write_media(Artefact("video", CLIP[:1]), tmp_path, "vid_1")
    assert (path.suffix, read_media(path).kind) == (".mp4", "video")


def test_a_result_has_the_frame_rate_of_its_source():
    source, made = Artefact("video", CLIP, fps=24.0), Artefact("video", CLIP)
    assert made.timed_like(source).fps == 24.0
    assert Artefact("video", CLIP, fps=5.0).timed_like(source).fps == 5.0
    assert Artefact("video", CLIP[:2]).timed_like(source).fps is None
    assert made.timed_like(None) is made


def test_of_a_long_video_frames_are_kept_that_fit(tmp_path):
    frames = np.repeat(np.arange(0, 200, 2, dtype=np.uint8), 16 * 24 * 3).reshape(100, 16, 24, 3)
    for suffix in ("mp4", "gif"):
        path = write_media(Artefact("video", frames, fps=10.0), tmp_path, "vid_1", video_format=suffix)
        assert read_media(path).num_frames == 100
        found = read_media(path, max_frames=12)
        assert (found.num_frames, found.note) == (12, "12 of 100 frames")
        assert np.abs(found.data[:, 0, 0, 0].astype(int) - 2 * np.linspace(0, 99, 12).astype(int)).max() < 4
        # it lasts as long as before
        assert found.num_frames / found.fps == pytest.approx(10, rel=0.1)
        assert read_media(path, max_pixels=20 * 16 * 24).num_frames == 20
        with pytest.raises(MediaError, match="claims 24 x 16 pixels, more than 100"):
            read_media(path, max_pixels=100)
    path = write_media(Artefact("video", np.tile(frames, (6, 1, 1, 1))), tmp_path, "vid_2")
    assert (read_media(path).num_frames, read_media(path).note) == (SAMPLED_FRAMES, "64 of 600 frames")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "a.tif")
    assert read_media(tmp_path / "a.tif").data.shape == (3, 4, 3)


def test_floats_in_zero_to_one_keep_their_brightness(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 4, 3), 0.5, dtype=np.float32), photometric="rgb")
    assert np.abs(read_media(tmp_path / "a.tif").data.astype(int) - 128).max() <= 1


def test_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=exif)
    assert read_media(tmp_path / "a.jpg").size == (8, 6)
    assert decode_media((tmp_path / "a.jpg").read_bytes()).size == (8, 6)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (4, 3), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_media(tmp_path / "a.png").data.min() == 255


@pytest.mark.parametrize("name", ["my image.png", "it's; rm -rf.png", '"quoted" & $(x).png'])
def test_odd_file_names_are_only_names(tmp_path, name):
    Image.fromarray(PICTURE).save(tmp_path / name)
    assert np.array_equal(read_media(tmp_path / name).data, PICTURE)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    good = write_media(Artefact("image", PICTURE), tmp_path, "good").read_bytes()
    (tmp_path / "short.png").write_bytes(good[: len(good) // 2])
    video = write_media(Artefact("video", CLIP), tmp_path, "video").read_bytes()
    (tmp_path / "short.mp4").write_bytes(video[:-40])
    cases = {
        "none.png": "does not exist",
        ".": "is a folder, not an image or a video",
        "text.png": "is not an image",
        "short.png": "damaged or cut short",
        "short.mp4": "damaged or cut short",
    }
    for name, message in cases.items():
        with pytest.raises(MediaError, match=message):
            read_media(tmp_path / name)


@pytest.mark.parametrize("name", ["../a", "a/b", "", "a b", "a.png", "é"])
def test_names_stay_in_their_folder(tmp_path, name):
    with pytest.raises(MediaError, match="a name has letters"):
        write_media(Artefact("image", PICTURE), tmp_path, name)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        write_media(Artefact("image", PICTURE), tmp_path / "file", "img_1")


@pytest.mark.parametrize(
    ("kind", "data", "labels", "message"),
    [
        ("image", CLIP, (), r"\(H, W, 3\) uint8, got"),
        ("image", PICTURE / 255, (), "float64"),
        ("image", PICTURE[..., :2], (), r"got \(6, 8, 2\)"),
        ("video", PICTURE, (), r"\(T, H, W, 3\)"),
        ("video", CLIP[:0], (), "must have pixels"),
        ("masks", MASKS[0], (), r"\(K, T, H, W\) bool"),
        ("masks", MASKS, ("one",), "one label each, got 1"),
        ("image", PICTURE, ("one",), "one label each"),
    ],
)
def test_artefacts_are_checked(kind, data, labels, message):
    with pytest.raises(MediaError, match=message):
        Artefact(kind, data, labels)


def test_no_mask_is_an_answer():
    assert not Artefact("masks", MASKS[:0]).joint_mask().any()
    assert np.array_equal(Artefact("masks", MASKS, ("a", "b")).joint_mask(5), MASKS.any(axis=(0, 1)))


def test_an_overlay_keeps_the_colours_below_the_masks():
    masks = np.zeros((1, 1, 6, 8), dtype=bool)
    masks[0, 0, 2:4, 2:5] = True
    drawn = overlay(Artefact("masks", masks, ("a",)), Artefact("image", PICTURE))
    inside = masks[0, 0]
    assert np.array_equal(drawn.data[inside], PICTURE[inside])
    assert (drawn.data[~inside] != PICTURE[~inside]).any(axis=-1).all()
    with pytest.raises(MediaError, match="do not fit"):
        overlay(Artefact("masks", MASKS, ("a", "b")), Artefact("video", CLIP))


def test_masks_have_no_colours():
    with pytest.raises(MediaError, match="no colours"):
        _ = Artefact("masks", MASKS, ("a", "b")).frames
    with pytest.raises(MediaError, match="image is not a mask"):
        Artefact("image", PICTURE).joint_mask()


def test_nothing_in_the_package_can_reach_a_shell():
    files = list(Path(vitron.__file__).parent.rglob("*.py"))
    assert len(files) > 20
    banned = {"subprocess", "os.system", "os.popen", "pickle", "eval", "exec"}
    for file in files:
        tree = ast.parse(file.read_text("utf-8"))
        names = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert names & banned == set(), file
