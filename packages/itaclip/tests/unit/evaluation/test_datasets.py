# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from itaclip.evaluation.datasets import (
    FOREIGN,
    IGNORE,
    LAYOUTS,
    UNUSED_STUFF,
    SampleError,
    cityscapes_from_raw,
    objects_from_raw,
    open_dataset,
    stuff_from_raw,
)
from itaclip.inputs import to_tensor
from PIL import Image

# stored number -> class id, for the numbers that conftest.STORED writes
MEANING = {
    "voc21": {0: 0, 1: 1, 20: 20, 255: 255},
    "context60": {0: 0, 1: 1, 59: 59},
    "coco-object": {0: 0, 1: 1, 80: 80},
    "coco-stuff": {0: 0, 1: 1, 170: 170, 255: 255},
    "cityscapes": {0: 0, 1: 1, 18: 18, 255: 255},
    "voc20": {0: 255, 1: 0, 20: 19, 255: 255},
    "context59": {0: 255, 1: 0, 59: 58},
    "ade20k": {0: 255, 1: 0, 150: 149},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_reads_every_data_set_in_its_own_tree(name, tmp_path, make_tree):
    made = make_tree(name, tmp_path)
    dataset = open_dataset(name, tmp_path)
    assert [sample.name for sample in dataset.samples] == list(made)
    for sample, stored in zip(dataset.samples, made.values(), strict=True):
        photo, labels = sample.read()
        assert photo.mode == "RGB"
        assert photo.size == stored.shape[::-1]
        np.testing.assert_array_equal(labels, np.vectorize(MEANING[name].get)(stored))


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("voc21", "VOCdevkit/VOC2012"),
        ("context59", "VOC2010"),
        ("coco-stuff", "coco_stuff164k"),
        ("ade20k", "ADEChallengeData2016"),
    ],
)
def test_finds_the_tree_below_its_usual_parent(name, home, tmp_path, make_tree):
    make_tree(name, tmp_path / home)
    assert open_dataset(name, tmp_path).root == tmp_path / home


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_tables_of_every_layout_fit(layout):
    for form in layout.forms:
        classes = set(form.table.tolist()) - {IGNORE, FOREIGN}
        assert classes == set(range(layout.num_classes))


def test_numbers_of_coco_stuff():
    stuff, objects = stuff_from_raw(), objects_from_raw()
    assert [int(stuff[raw]) for raw in (0, 10, 12, 89, 91, 181, 255)] == [0, 10, 11, 79, 80, 170, 255]
    assert [int(objects[raw]) for raw in (0, 10, 12, 89, 91, 181, 255)] == [1, 11, 12, 80, 0, 0, 0]
    for table in (stuff, objects):
        assert (table[list(UNUSED_STUFF)] == FOREIGN).all()
        assert (table[182:255] == FOREIGN).all()


def test_numbers_of_cityscapes():
    table = cityscapes_from_raw()
    # road, sidewalk, traffic sign, person, bicycle; unlabelled, licence plate, guard rail
    assert [int(table[raw]) for raw in (7, 8, 20, 24, 33, 0, 255, 14)] == [0, 1, 7, 11, 18, 255, 255, 255]


@pytest.mark.parametrize(
    ("name", "suffix", "raw", "ids"),
    [
        ("coco-stuff", "annotations/val2017/{}.png", [0, 12, 181, 255], [0, 11, 170, 255]),
        ("coco-object", "annotations/val2017/{}.png", [0, 12, 181, 255], [1, 12, 0, 0]),
        ("coco-object", "annotations/val2017/{}_labelTrainIds.png", [0, 11, 170, 255], [1, 12, 0, 0]),
        ("cityscapes", "gtFine/val/{}_gtFine_labelIds.png", [0, 7, 33, 255], [255, 0, 18, 255]),
    ],
)
def test_label_maps_as_published_do_without_conversion(name, suffix, raw, ids, tmp_path, make_tree):
    (sample,) = make_tree(name, tmp_path, 1, size=(4, 1), suffix=suffix)
    Image.fromarray(np.array([raw], dtype=np.uint8)).save(tmp_path / suffix.format(sample))
    _, labels = open_dataset(name, tmp_path).samples[0].read()
    assert labels.tolist() == [ids]


def test_converted_map_is_preferred(tmp_path, make_tree):
    make_tree("coco-stuff", tmp_path)
    make_tree("coco-stuff", tmp_path, suffix="annotations/val2017/{}.png")
    for sample in open_dataset("coco-stuff", tmp_path).samples:
        assert sample.label.name.endswith("_labelTrainIds.png")


def test_palette_is_not_looked_at(tmp_path, make_tree):
    (name,) = make_tree("voc21", tmp_path, 1, size=(3, 1))
    image = Image.frombytes("P", (3, 1), bytes([0, 15, 255]))
    image.putpalette([7] * 768)
    image.save(tmp_path / f"SegmentationClass/{name}.png")
    _, labels = open_dataset("voc21", tmp_path).samples[0].read()
    assert labels.tolist() == [[0, 15, 255]]


def test_limit_is_spread_over_the_set(tmp_path, make_tree):
    make_tree("ade20k", tmp_path, 7)
    dataset = open_dataset("ade20k", tmp_path)
    assert [sample.name for sample in dataset.limited(3).samples] == ["000000", "000002", "000004"]
    assert dataset.limited(9) is dataset
    with pytest.raises(ValueError, match="limit must be at least 1"):
        dataset.limited(0)


def _voc_sample(tmp_path, make_tree, **options):
    make_tree("voc21", tmp_path, 1, **options)
    return open_dataset("voc21", tmp_path).samples[0]


def _cut(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.image.unlink(), "jpg does not exist"),
        (lambda s: s.label.unlink(), "png does not exist"),
        (lambda s: s.image.write_text("no image"), "jpg is not an image"),
        (lambda s: _cut(s.label), "png is damaged or cut short"),
        (lambda s: Image.new("L", (2, 2)).save(s.label), "2 x 2, its image 6 x 5"),
        (lambda s: Image.new("RGB", (6, 5)).save(s.label), "holds colours"),
        (lambda s: Image.new("L", (6, 5), 21).save(s.label), "holds the number 21"),
        (lambda s: Image.new("I;16", (6, 5), 300).save(s.label), "holds the number 300"),
    ],
    ids=["no-image", "no-label", "text", "cut", "size", "colours", "number", "deep"],
)
def test_bad_files_are_named(spoil, message, tmp_path, make_tree):
    sample = _voc_sample(tmp_path, make_tree)
    spoil(sample)
    with pytest.raises(SampleError, match=message):
        sample.read()


def test_pixels_are_limited(tmp_path, make_tree):
    sample = _voc_sample(tmp_path, make_tree)
    with pytest.raises(SampleError, match="6 x 5 pixels, more than 29"):
        sample.read(max_pixels=29)


def test_stored_orientation_is_kept(tmp_path, make_tree):
    sample = _voc_sample(tmp_path, make_tree)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(sample.image).save(sample.image, exif=exif)
    photo, labels = sample.read()
    assert photo.size == (6, 5)
    assert to_tensor(photo).shape[1:] == labels.shape  # nothing behind turns it either


def test_wrong_use_is_one_sentence(tmp_path, make_tree):
    with pytest.raises(ValueError, match="no data set 'voc': choose one of voc21"):
        open_dataset("voc", tmp_path)
    with pytest.raises(ValueError, match="is no folder: --root must be"):
        open_dataset("voc21", tmp_path / "nothing")
    with pytest.raises(ValueError, match="does not hold voc21: there must be JPEGImages/ and"):
        open_dataset("voc21", tmp_path)
    with pytest.raises(ValueError, match="split must be a plain name"):
        open_dataset("voc21", tmp_path, split="../val")
    make_tree("ade20k", tmp_path, 0)
    (tmp_path / "images/validation").mkdir(parents=True)
    with pytest.raises(ValueError, match="no image"):
        open_dataset("ade20k", tmp_path)


def test_a_set_without_any_label_map_is_refused(tmp_path, make_tree):
    make_tree("ade20k", tmp_path, 2)
    for file in (tmp_path / "annotations").rglob("*.png"):
        file.unlink()
    with pytest.raises(ValueError, match="none of the 2 images of ade20k has a label map"):
        open_dataset("ade20k", tmp_path)


@pytest.mark.parametrize("line", ["../../etc/passwd", "/etc/passwd", "a/b", ".."])
def test_lists_do_not_leave_the_tree(line, tmp_path, make_tree):
    make_tree("voc21", tmp_path)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text(line)
    with pytest.raises(ValueError, match="must be the plain name of an image"):
        open_dataset("voc21", tmp_path)
