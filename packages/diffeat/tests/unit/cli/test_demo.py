# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import torch
from diffeat.demo import CANDIDATES, LEGACY, SCENES, DemoScenes
from diffeat.shipped import SHIPPED
from PIL import Image

FILES = ["matches.png", "page.html", "pca.png", "ranking.json", "similarity.png"]


def test_the_scenes_are_small_and_whole():
    assert sum(file.stat().st_size for file in SCENES.iterdir()) < 400_000
    scenes = DemoScenes.load()
    assert len(scenes.images) == len(scenes.points) == 2 * len(scenes.masks) == 16
    for first, second in zip(scenes.points[::2], scenes.points[1::2], strict=True):
        assert list(first) == list(second)
        assert len(first) >= 6
    for image, mask in zip(scenes.images[::2], scenes.masks, strict=True):
        assert image.size == mask.shape[::-1] == (128, 128)
    assert set(np.unique(scenes.masks)) == set(range(len(scenes.classes)))


def test_points_lie_on_what_they_name():
    """The colour around the centre of a thing is the same in both views."""
    scenes = DemoScenes.load()
    for index in range(0, 16, 2):
        mask = torch.from_numpy(scenes.masks[index // 2])
        for name, (x, y) in scenes.points[index].items():
            around = mask[max(0, int(y) - 3) : int(y) + 4, max(0, int(x) - 3) : int(x) + 4]
            # a ring has no middle
            assert name.endswith("centre") or bool((around > 0).any()), (index, name)


def test_the_command_says_and_writes(here, run, small_sdxl_folder):
    shown = run("demo", "--model", small_sdxl_folder, "--device", "cpu")
    assert "The model has 116 activations; 12 were ranked" in shown.stdout
    assert "FLOP" not in shown.stdout  # nothing is known about it, so there is no empty column
    assert sorted(file.name for file in Path("diffeat-demo").iterdir()) == FILES
    plain = run("demo", "--model", small_sdxl_folder, "--device", "cpu", "--json", "-o", "again")
    figures = json.loads(plain.stdout)
    assert {"num_activations", "pck", "pck_baseline", "pck_pixels", "miou", "seconds"} <= figures.keys()
    assert figures["ranked"] == len(CANDIDATES)
    assert figures["num_activations"] == 116
    for name in FILES:
        if name.endswith("png"):
            with Image.open(f"again/{name}") as one, Image.open(f"diffeat-demo/{name}") as other:
                np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_baselines_are_not_among_what_is_chosen_from():
    assert not set(LEGACY) & set(CANDIDATES)


class TestShippedModel:
    def test_it_is_the_default(self, rows):
        found = rows("names", "--size", 128)
        assert len(found) == 116
        maps = {each["name"]: each["shape"] for each in found}
        assert maps["mid-vit-block0-cross-map"] == [6, 8, 8, 24]

    def test_it_is_small_and_holds_no_pickle(self):
        files = [file for file in SHIPPED.folder("tiny-sdxl").rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) < 8_000_000
        assert {file.suffix for file in files} <= {".json", ".md", ".txt", ".safetensors"}

    def test_what_is_chosen_finds_more_than_what_earlier_work_takes(self, here, run):
        figures = json.loads(run("demo", "--device", "cpu", "--json").stdout)
        assert figures["pck"] >= figures["pck_baseline"]
        assert figures["pck"] > 0.2
