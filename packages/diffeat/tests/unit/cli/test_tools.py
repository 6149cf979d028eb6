# SPDX-License-Identifier: Apache-2.0
"""Ranking, looking, matching and segmenting as a user does them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffeat.ranking import Ranking
from PIL import Image

NAMES = ["-n", "mid-repeat0-res-out", "-n", "up-level1-repeat0-vit-block0-{cross-q,out}"]
SMALL = ["--device", "cpu", "--size", 32]


def size_of(file):
    with Image.open(file) as image:
        return image.size


@pytest.fixture
def labelled(here):
    """Four images whose left half is dark, with masks and points."""
    points = {}
    for number in range(4):
        rng = np.random.default_rng(number)
        pixels = rng.integers(100, 256, (24, 32, 3), dtype=np.uint8)
        pixels[:, :16] //= 8
        mask = np.zeros((24, 32), np.uint8)
        mask[:, 16:] = 1
        mask[0] = 255
        for folder, array in (("images", pixels), ("masks", mask)):
            Path(folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(f"{folder}/p{number}.png")
        points[f"p{number}.png"] = {"edge": [16, 12], "corner": [0, 24 - number]}
    Path("points.json").write_text(json.dumps(points))
    return here


def test_rank_on_masks_compares_and_chooses(labelled, run, sd15_folder):
    args = ["rank", "images", "masks", "--model", sd15_folder, *NAMES, *SMALL, "--folds", 2, "--pixels", 40]
    args += [
        "--classes",
        "dark",
        "--classes",
        "light",
        "-c",
        "up-level1-*-cross-q",
        "-c",
        "DIFT",
        "--budget",
        32,
    ]
    report = json.loads(run(*args, "--json").stdout)
    assert (report["metric"], report["images"], len(report["ranking"])) == ("mIoU", 4, 3)
    means = [row["mean"] for row in report["ranking"]]
    assert means == sorted(means, reverse=True)
    assert report["compared"]["DIFT"]["names"] == ["up-level1-upsampler-out"]
    assert len(report["compared"]["up-level1-*-cross-q"]["names"]) == 3
    assert all(row["channels"] <= 32 for row in report["selection"])
    assert report["files"] == [
        f"diffeat-ranking/{n}" for n in ("ranking.json", "ranking.png", "selection.json")
    ]
    assert Ranking.from_json("diffeat-ranking/ranking.json").rows[0].mean == pytest.approx(means[0], abs=1e-5)
    scores = Path("diffeat-ranking/scores.jsonl").read_bytes()
    shown = run(*args, "--top", 2).stdout
    assert shown.count("±") >= 2 + 2 + 1
    assert Path("diffeat-ranking/scores.jsonl").read_bytes() == scores  # nothing was judged twice


def test_rank_from_a_store_on_points(labelled, run, sd15_folder):
    run("extract", "images", "--model", sd15_folder, *NAMES, *SMALL, "-o", "store")
    args = ["rank", "images", "points.json", "--model", "store", "--folds", 2, "--side", 8]
    report = json.loads(run(*args, "--json").stdout)
    assert (report["metric"], len(report["ranking"])) == ("PCK", 3)
    assert "3 activations ranked" in run(*args).stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["images", "empty"], "empty holds no images"),
        (["images", "none"], "none is not a folder of images"),
        (["photos", "masks"], "masks in masks must have one for each image, got none for 2 (0, 1)"),
        (["images", "wrong"], "the mask of p0.png must be as large as its image, got 3x3 for 24x32"),
        (["images", "coloured"], "p0.png holds colours (RGB), but a label map has one number a pixel"),
        (["images", "masks", "--classes", "a"], "masks must hold classes below 1"),
        (["images", "points.json", "--classes", "a"], "--classes needs masks"),
        (["images", "text.json"], "text.json must read like"),
        (["photos", "points.json"], "points in points.json must have one for each image, got none for 2"),
        (["images", "masks", "--folds", "5"], "folds must be at most the number of images, 4 here, got 5"),
        (
            ["images", "masks", "--folds", "2", "-n", "nowhere-*"],
            "the pattern 'nowhere-*' matches none of the",
        ),
        (["images", "masks", *NAMES, "--budget", "1", "--folds", "2"], "channels must hold at least one"),
    ],
)
def test_labels_that_do_not_fit(labelled, complain, sd15_folder, args, message):
    Path("empty").mkdir()
    Path("text.json").write_text("[]")
    for folder, size in (("wrong", (3, 3)), ("coloured", (32, 24))):
        Path(folder).mkdir()
        for number in range(4):
            mode = "RGB" if folder == "coloured" else "L"
            Image.new(mode, size).save(f"{folder}/p{number}.png")
    assert message in complain("rank", *args, "--model", sd15_folder, *SMALL, "--pixels", 20)


def test_scores_of_something_else_are_not_mixed(labelled, run, complain, sd15_folder):
    args = [
        "rank",
        "images",
        "masks",
        "--model",
        sd15_folder,
        "-n",
        "mid-repeat0-res-out",
        *SMALL,
        "--folds",
        2,
    ]
    run(*args)
    assert "holds scores of other features" in complain(*args, "--seed", 1, "--prompt", "a cat")
    run(*args, "--seed", 1, "--overwrite")


def test_properties(here, run, rows, sd15_folder):
    args = [
        "properties",
        "photos",
        "--model",
        sd15_folder,
        "-n",
        "up-level3-*",
        "--device",
        "cpu",
        "-o",
        "up.json",
    ]
    found = rows(*args)
    assert len(found) == 3 * 9
    assert all(row["noise_sensitivity"] is not None for row in found)
    assert Path("up.png").stat().st_size > 1000
    assert len(json.loads(Path("up.json").read_text())["rows"]) == len(found)
    assert "noise sensitivity" in run(*args, "--overwrite").stdout


def test_properties_go_where_they_are_wanted(here, run, complain, sd15_folder):
    args = [
        "properties",
        "photos/0.png",
        "--model",
        sd15_folder,
        "-n",
        "up-level3-repeat0-res-out",
        "--device",
        "cpu",
    ]
    assert "1 activation measured on 1 image" in run(*args, "-o", "new/up.json").stderr
    assert sorted(file.name for file in Path("new").iterdir()) == ["up.json", "up.png"]
    assert "--output names the file of the figures, such as up.json, got up.png" in complain(
        *args, "-o", "up.png"
    )


def test_view_draws_every_kind(here, rows, complain, sd15_folder):
    args = ["view", "photos", "--model", sd15_folder, "-r", "-n", "mid-*-out", *SMALL, "-o", "seen"]
    for kind in ("pca", "clusters", "similarity", "page"):
        args += ["--kind", kind]
    (report,) = rows(*args, "--clusters", 2, "--point", 3, 4)
    assert len(report["files"]) == 4 * len(report["names"]) == 16
    drawn = [file for file in report["files"] if file.endswith("png")]
    assert len({size_of(file) for file in drawn}) == 1
    with Image.open("seen/mid-vit-out-similarity.png") as drawing:
        assert (np.asarray(drawing) == (255, 60, 200)).all(axis=-1).any()  # where the point is
    (together,) = rows(*args, "--clusters", 2, "--together")
    assert together["files"][0] == "seen/together-pca.png"
    assert "0.png" in Path("seen/together-page.html").read_text()
    assert "together-pca.png exists: give another name, or --overwrite" in complain(*args, "--together")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-n", "mid-vit-block0-self-map"], "mid-vit-block0-self-map must be (batch, channels, height"),
        (
            ["-n", "mid-repeat0-res-out", "--kind", "similarity", "--point", 99, 1],
            "inside the first image, 30x40",
        ),
        (["-n", "mid-repeat0-res-out", "--point", "here", 1], "--point"),
        (["-n", "mid-repeat0-res-out", "-o", "seen.html"], "--output is a folder of drawings"),
    ],
)
def test_what_cannot_be_seen(here, complain, sd15_folder, args, message):
    assert message in complain("view", "photos", "--model", sd15_folder, *args, *SMALL)


def test_match_on_a_grid_on_points_and_with_truth(labelled, run, rows, sd15_folder):
    options = ["--model", sd15_folder, "-n", "up-level3-repeat0-res-out", *SMALL, "--overwrite"]
    same, other = (["match", "images/p0.png", f"images/p{number}.png", *options] for number in (0, 1))
    (mutual,) = rows(*same, "--grid", 8)
    assert len(mutual["matches"]) == 64
    assert all(each["similarity"] > 0.99 for each in mutual["matches"])
    (chosen,) = rows(*other, "--point", 1, 2, "--point", 30, 20, "-o", "deep/drawn.png")
    assert [each["source"] for each in chosen["matches"]] == [[1, 2], [30, 20]]
    assert size_of("deep/drawn.png")[1] > 400
    same += ["--points", "points.json"]
    (judged,) = rows(*same)
    assert judged["pck"] == 1
    assert [each["right"] for each in judged["matches"]] == [True, True]
    assert "2 matches, 2 of 2 correct" in run(*same).stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--point", 40, 1], "--point must lie inside p0.png, 32x24 pixels"),
        (["--point", 1, 1, "--points", "points.json"], "--point and --points exclude each other"),
        (["--points", "other.json"], "must have one for each image, got none for 2 (p0, p1)"),
    ],
)
def test_points_that_do_not_fit(labelled, complain, sd15_folder, args, message):
    Path("other.json").write_text("{}")
    pair = ["images/p0.png", "images/p1.png"]
    assert message in complain(
        "match", *pair, "--model", sd15_folder, "-n", "mid-repeat0-res-out", *SMALL, *args
    )


def test_an_image_that_is_nowhere(labelled, complain, sd15_folder):
    pair = ["images/p0.png", "nowhere.png"]
    message = complain("match", *pair, "--model", sd15_folder, "-n", "unet-in", *SMALL)
    assert message == "diffeat: nowhere.png does not exist"


def test_segment_learns_writes_and_resumes(labelled, run, rows, sd15_folder):
    (labelled / "photos" / "text.png").write_text("no image")
    args = ["segment", "photos", "--labelled", "images", "--masks", "masks", "-n", "unet-in"]
    args += [*SMALL, "--model", sd15_folder, "--classes", "dark", "--classes", "light", "--side", 32]
    found = {row["input"]: row for row in rows(*args, code=1)}
    assert [row["status"] for row in found.values()] == ["done", "done", "failed"]
    assert "is not an image that can be read" in found["photos/text.png"]["error"]
    with Image.open("diffeat-segments/0-labels.png") as labels:
        assert (labels.size, labels.mode) == ((30, 40), "P")
        assert set(np.unique(labels)) <= {0, 1}
    with Image.open("diffeat-segments/0-overlay.png") as drawn:
        assert drawn.height > 40 + 14  # a legend below the image
    assert sum(found["photos/0.png"]["shares"].values()) == pytest.approx(1, abs=1e-3)
    again = rows(*args, code=1)
    assert [row["status"] for row in again] == ["skipped", "skipped", "failed"]
    other = rows(*args, "--seed", 1, code=1)
    assert [row["status"] for row in other] == ["done", "done", "failed"]


def test_segment_judges_itself(labelled, rows, complain, sd15_folder):
    args = ["segment", "--labelled", "images", "--masks", "masks", "-n", "unet-in", "--model", sd15_folder]
    args += [*SMALL, "-t", 0]
    (report,) = rows(*args, "--num-train", 2, "--runs", 2, "--side", 16)
    assert report["num_train"] == 2
    assert len(report["scores"]) == 2
    assert report["miou"] > 0.5  # dark and light halves are told apart by the latent alone
    assert "num_train must leave test images of 4" in complain(*args, "--num-train", 4)
    assert "--labelled" in complain("segment", "-n", "unet-in")


def test_pck_goes_past_an_image_that_is_missing(labelled, run, rows, sd15_folder):
    pair = {
        "source_path": "p0.png",
        "target_path": "p0.png",
        "source_points": [[10, 7.5]],
        "target_points": [[10, 7.5]],
        "target_bounding_box": [0, 0, 32, 24],
        "category": "cat",
    }
    Path("pairs.json").write_text(json.dumps([pair, {**pair, "target_path": "none.png"}]))
    args = ["--model", sd15_folder, "-n", "unet-in", *SMALL, "--side", 8]
    found = run("pck", "images", *args, "--list", "pairs.json", "--json", code=1)
    assert "pair 1 is left out: images/none.png" in found.stderr
    report = json.loads(found.stdout)
    assert (report["pairs"], report["left_out"]) == (1, ["1"])
    assert "1 pair left out: not comparable" in report["protocol"]
    for name in ("whole", "part"):
        spair = {"category": "cat", "src_imname": f"{name}.png", "trg_imname": "whole.png"}
        spair |= {"src_kps": [[10, 7.5]], "trg_kps": [[10, 7.5]], "trg_bndbox": [0, 0, 32, 24]}
        folder = Path("part/PairAnnotation/test")
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {"src_imsize": [32, 24, 3], "trg_imsize": [32, 24, 3]}
        (folder / f"{name}.json").write_text(json.dumps({**spair, **sizes}))
    Path("part/JPEGImages/cat").mkdir(parents=True)
    Path("images/p0.png").rename("part/JPEGImages/cat/whole.png")
    (report,) = rows("pck", "part", *args, code=1)
    assert (report["pairs"], report["left_out"]) == (1, ["part"])


def test_pck_of_a_list_and_of_a_split(labelled, run, rows, complain, sd15_folder):
    pair = {
        "source_path": "p0.png",
        "target_path": "p0.png",
        "source_points": [[10, 7.5], [22, 13.5]],
        "target_points": [[10, 7.5], [22, 13.5]],
        "target_bounding_box": [0, 0, 32, 24],
        "category": "cat",
    }
    Path("pairs.json").write_text(json.dumps([pair, pair]))
    args = ["--model", sd15_folder, "-n", "unet-in", *SMALL, "--side", 8, "--threshold", "0.01"]
    (report,) = rows("pck", "images", *args, "--list", "pairs.json", "--limit", 1)
    assert report["protocol"] == "list of 2 pairs, 1 of them"
    assert {row["against"]: row["per_point"] for row in report["pck"]} == {"image": 1, "box": 1}
    assert "list of 2 pairs" in run("pck", "images", *args, "--list", "pairs.json").stdout
    folder = Path("part/PairAnnotation/test")
    folder.mkdir(parents=True)
    Path("part/JPEGImages/cat").mkdir(parents=True)
    Path("images/p0.png").rename("part/JPEGImages/cat/p0.png")
    spair = {"category": "cat", "src_imname": "p0.png", "trg_imname": "p0.png", "src_kps": [[10, 7.5]]}
    spair |= {"trg_kps": [[10, 7.5]], "trg_bndbox": [0, 0, 32, 24], "src_imsize": [32, 24, 3]}
    (folder / "1.json").write_text(json.dumps({**spair, "trg_imsize": [32, 24, 3]}))
    (part,) = rows("pck", "part", *args)
    assert part["protocol"] == "SPair-71k test, 1 pairs of its 12,234: not comparable"
    assert "images is not SPair-71k" in complain("pck", "images", *args)
    assert "points.json is not a list of pairs: it must read [{" in complain(
        "pck", "images", *args, "--list", "points.json"
    )


def test_no_gradients_or_bars_are_left(here, run, sd15_folder):
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    run("view", "photos", "--model", sd15_folder, "-n", "mid-repeat0-res-out", *SMALL)
    assert logging.is_progress_bar_enabled() == shown
    assert torch.is_grad_enabled()
