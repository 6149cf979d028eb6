# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from diffeat.ranking import KeypointLabels, LabelError, MaskLabels
from PIL import Image


@pytest.fixture
def folders(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(3):
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / f"p{number}.png")
        mask = Image.fromarray(np.full((6, 8), number, np.uint8))
        mask.save(tmp_path / "masks" / f"p{number}.png")
    return tmp_path


def read(folder, **options):
    return MaskLabels.read(folder / "images", folder / "masks", **options)


def test_folders_are_read_by_stem(folders):
    labels = read(folders)
    assert labels.sources == ("p0.png", "p1.png", "p2.png")
    assert [int(mask[0, 0]) for mask in labels.masks] == [0, 1, 2]
    assert labels.classes == ("0", "1", "2")


def test_palettes_give_their_indices(folders):
    mask = Image.new("P", (8, 6), 1)
    mask.putpalette([0, 0, 0, 200, 10, 10])
    mask.save(folders / "masks" / "p2.png")
    assert read(folders).masks[2].max() == 1


def test_a_missing_mask_is_named(folders):
    (folders / "masks" / "p1.png").unlink()
    with pytest.raises(LabelError, match=r"masks must have one for each image, got none for 1 \(p1\)"):
        read(folders)


def test_sizes_must_fit(folders):
    Image.new("L", (4, 6)).save(folders / "masks" / "p1.png")
    with pytest.raises(LabelError, match=r"mask of p1\.png must be as large as its image, got 6x4 for 6x8"):
        read(folders)


def test_colours_are_no_classes(folders):
    Image.new("RGB", (8, 6)).save(folders / "masks" / "p1.png")
    with pytest.raises(LabelError, match=r"holds colours \(RGB\)"):
        read(folders)


def test_classes_must_exist(folders):
    with pytest.raises(LabelError, match=r"classes below 2 .* got 2"):
        read(folders, classes=("ground", "thing"))


def test_one_class_is_no_task():
    with pytest.raises(LabelError, match="at least 2 classes, got 1"):
        MaskLabels([np.zeros((4, 4, 3), np.uint8)], [np.zeros((4, 4), np.uint8)])


def test_counts_must_fit():
    with pytest.raises(LabelError, match="got 0 for 1 images"):
        MaskLabels([np.zeros((4, 4, 3), np.uint8)], [])
    with pytest.raises(LabelError, match="got 0 for 1 images"):
        KeypointLabels([np.zeros((4, 4, 3), np.uint8)], [])


def test_folders_must_hold_images(tmp_path):
    with pytest.raises(LabelError, match="is not a folder of images"):
        read(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(LabelError, match="holds no images"):
        read(tmp_path)


def points_file(folder, content):
    file = folder / "points.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_points_are_read(folders):
    file = points_file(folders, {"p0.png": {"eye": [1, 2]}, "p1": {"eye": [3, 4.5], "ear": [8, 6]}, "p2": {}})
    labels = KeypointLabels.read(folders / "images", file)
    assert labels.points[1] == {"eye": (3.0, 4.5), "ear": (8.0, 6.0)}
    assert labels.size(0) == (6, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "got no JSON"),
        ([1], "got another structure"),
        ({"p0": {"eye": [1]}}, "got another structure"),
        ({"p0": {"eye": [1, 2]}}, r"got none for 2 \(p1, p2\)"),
        ({"p0": {"eye": [1, 2]}, "p1": {"eye": [9, 2]}, "p2": {}}, r"eye at \(9, 2\) in p1\.png of 8x6"),
        ({"p0": {"eye": [1, 2]}, "p1": {"ear": [1, 2]}, "p2": {}}, "at least two images must share a point"),
    ],
)
def test_points_that_do_not_fit(folders, content, message):
    with pytest.raises(LabelError, match=message):
        KeypointLabels.read(folders / "images", points_file(folders, content))


def test_digests_follow_the_labels(folders):
    labels = read(folders)
    changed = [mask.copy() for mask in labels.masks]
    changed[0][0, 0] = 1
    assert labels.digest() == read(folders).digest()
    assert labels.digest() != MaskLabels(labels.images, changed).digest()
