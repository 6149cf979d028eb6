# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import pytest
import torch
from diffeat.pck import evaluate_pairs, pck, predict_points, read_pair_list, read_spair
from PIL import Image

ANNOTATION = {
    "src_imname": "a.jpg",
    "trg_imname": "b.jpg",
    "src_imsize": [40, 20, 3],
    "trg_imsize": [100, 50, 3],
    "trg_bndbox": [10, 5, 40, 45],
    "category": "cat",
    "src_kps": [[5, 5], [20, 10]],
    "trg_kps": [[50, 20], [60, 20]],
}


@pytest.fixture
def spair(tmp_path):
    for split, names in (("test", ["000002-x", "000001-x"]), ("val", ["000003-x"])):
        folder = tmp_path / "PairAnnotation" / split
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.json").write_text(json.dumps(ANNOTATION))
    return tmp_path


def test_spair_is_read_in_order(spair):
    pairs = read_spair(spair)
    assert [pair.name for pair in pairs] == ["000001-x", "000002-x"]
    pair = pairs[0]
    assert pair.source == spair / "JPEGImages" / "cat" / "a.jpg"
    assert (pair.source_size, pair.target_size, pair.target_box) == ((40, 20), (100, 50), (10, 5, 40, 45))
    assert pair.target_points.tolist() == [[50, 20], [60, 20]]
    assert len(read_spair(spair, "val")) == 1


def test_spair_mistakes(spair, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not SPair-71k"):
        read_spair(tmp_path / "none")
    with pytest.raises(ValueError, match="'trn', 'val' or 'test', got 'train'"):
        read_spair(spair, "train")
    file = spair / "PairAnnotation" / "test" / "000001-x.json"
    file.write_text(json.dumps(ANNOTATION | {"src_kps": [1, 2]}))
    with pytest.raises(ValueError, match=r"000001-x\.json is not an annotation"):
        read_spair(spair)


def test_the_authors_list_is_read_with_sizes_from_the_images(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    Image.new("RGB", (100, 50)).save(tmp_path / "b.png")
    entry = {
        "source_path": "a.png",
        "target_path": "b.png",
        "category": "cat",
        "source_points": [[5, 6]],
        "target_points": [[50, 20]],
        "target_bounding_box": [10, 5, 40, 45],
    }
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps([entry]))
    pair = read_pair_list(file, tmp_path)[0]
    assert (pair.source_size, pair.target_size) == ((40, 20), (100, 50))
    assert pair.source_points.tolist() == [[5, 6]]
    file.write_text("[{}]")
    with pytest.raises(ValueError, match=r"pairs\.json is not a list of pairs"):
        read_pair_list(file, tmp_path)


def test_sides_of_image_and_box(spair):
    pair = read_spair(spair)[0]
    # image: 0.1 * 100 = 10 pixels, box: 0.1 * 40 = 4 pixels
    predicted = pair.target_points + torch.tensor([[10.0, 0.0], [0.0, 4.0]])
    against_image = pck([pair], [predicted], against="image")
    against_box = pck([pair], [predicted], against="box")
    assert (against_image.per_point, against_box.per_point) == (1.0, 0.5)
    beyond = predicted + torch.tensor([[0.01, 0.0], [0.0, 0.01]])
    assert pck([pair], [beyond], against="image").per_point == 0.5
    assert pck([pair], [beyond], against="box").per_point == 0.0


def test_points_are_pooled_and_images_averaged(spair):
    full = read_spair(spair)[0]
    single = replace(full, category="dog", target_points=full.target_points[:1])
    result = pck([full, single], [full.target_points, single.target_points + 99])
    assert result.per_point == pytest.approx(2 / 3)
    assert result.per_image == pytest.approx(1 / 2)
    assert result.by_category == {"cat": 1.0, "dog": 0.0}
    assert (result.pairs, result.points) == (2, 3)


def test_pck_mistakes(spair):
    pair = read_spair(spair)[0]
    with pytest.raises(ValueError, match="has 2 points, got 1 predictions"):
        pck([pair], [pair.target_points[:1]])
    with pytest.raises(ValueError, match="at least one pair"):
        pck([], [])
    with pytest.raises(ValueError, match="'image' or 'box'"):
        pck([pair], [pair.target_points], against="side")


@pytest.fixture
def moved(spair):
    """A pair whose target shows the source shifted by a quarter, and its features."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(8, 8, 8, generator=generator)
    cells = torch.tensor([[1, 2], [3, 5], [0, 7]])
    points = (cells + 0.5) / 8
    pair = replace(
        read_spair(spair)[0],
        source_points=points * torch.tensor([40, 20]),
        target_points=(points + torch.tensor([0.25, 0])) * torch.tensor([100, 50]),
    )
    maps = {pair.source: source, pair.target: source.roll(2, 2)}
    return pair, lambda path, category: maps[path]


def test_shifted_features_without_noise_find_everything(moved):
    pair, features = moved
    found = evaluate_pairs([pair], features, side=None, thresholds=(0.001, 0.1))
    assert {key: value.per_point for key, value in found.items()} == {
        (0.001, "image"): 1.0,
        (0.001, "box"): 1.0,
        (0.1, "image"): 1.0,
        (0.1, "box"): 1.0,
    }
    assert evaluate_pairs([pair], features, side=64)[0.1, "image"].per_point == 1


def test_a_head_is_applied_to_both(moved):
    pair, features = moved
    head = torch.nn.Conv2d(8, 4, 3, padding=1, bias=False)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:, :, 1, 1] = torch.eye(8)[:4]
        by_head = predict_points(
            pair, features(pair.source, ""), features(pair.target, ""), side=None, head=head
        )
    by_hand = predict_points(pair, features(pair.source, "")[:4], features(pair.target, "")[:4], side=None)
    assert torch.equal(by_head, by_hand)


def test_only_the_target_is_enlarged_and_nothing_changes(spair, monkeypatch):
    pair = read_spair(spair)[0]
    maps = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    large = [torch.nn.functional.interpolate(each[None], (32, 32), mode="bilinear")[0] for each in maps]
    wanted = predict_points(pair, *large, side=None)
    sizes = []
    enlarge = torch.nn.functional.interpolate

    def seen(value, *args, **options):
        sizes.append(value)
        return enlarge(value, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", seen)
    assert torch.equal(predict_points(pair, *maps, side=32), wanted)
    assert [torch.equal(each[0], maps[1]) for each in sizes] == [True]


def test_points_are_rounded_as_by_the_authors(spair):
    """Cell ``round(x * side / width)`` of the source, and the corner of the cell found, by hand."""
    pair = read_spair(spair)[0]
    maps = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    found = predict_points(pair, *maps, side=8, is_rounded=True)
    for (x, y), place in zip(pair.source_points.tolist(), found, strict=True):
        column, row = round(x * 8 / 40), round(y * 8 / 20)
        cosines = torch.nn.functional.cosine_similarity(maps[0][:, row, column, None, None], maps[1], dim=0)
        best_row, best_column = divmod(int(cosines.argmax()), 8)
        assert place.tolist() == pytest.approx([best_column * 100 / 8, best_row * 50 / 8])
    with pytest.raises(ValueError, match="rounding needs the side"):
        predict_points(pair, *maps, side=None, is_rounded=True)
