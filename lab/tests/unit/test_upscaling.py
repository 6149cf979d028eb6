# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recipes import gates
from recipes.probes.judging import Judge
from recipes.probes.network import Probe
from recipes.tiny_sdxl.assembly import assemble
from recipes.tiny_sdxl.autoencoder import build_autoencoder
from recipes.tiny_sdxl.denoiser import Denoiser, DenoiserOptions
from recipes.tiny_sdxl.judging import draw_orders
from recipes.upscaling import measures, photos
from recipes.upscaling.generation import Generated, generate_row, stored_row
from recipes.upscaling.report import COLUMNS, REQUIREMENTS, gate_figures, table
from recipes.upscaling.rows import ROWS, Row
from shapeworld import render


@dataclass
class FakeJudge:
    """Counts the same number of things of the first kind in every image."""

    things: int

    def classify(self, images):
        return {key: np.zeros(len(images), dtype=np.int64) for key in ("shape", "colour", "material")}

    def count(self, images):
        assert images.shape[1] == 128
        return np.full(len(images), self.things)


@pytest.fixture(scope="module")
def orders():
    return draw_orders(3, 4, 1)


@pytest.fixture(scope="module")
def scenes(orders):
    return np.stack([render(order.scene, 128).image for order in orders])


def test_rows_have_names_of_their_own_and_begin_with_the_scenes():
    assert len({row.key for row in ROWS}) == len(ROWS)
    for scale in (2, 4):
        assert next(row for row in ROWS if row.scale == scale).way == "scene"


@pytest.mark.parametrize(("things", "lost", "repeated"), [(0, 100, 0), (1, 0, 0), (2, 0, 100)])
def test_contents_separate_loss_from_repetition(things, lost, repeated, orders, scenes):
    figures = measures.contents(scenes, orders, FakeJudge(things))
    assert (figures["lost"], figures["repeated"]) == (lost, repeated)
    first = [order.scene.things[0].shape == "circle" for order in orders]
    assert figures["shape_right"] == pytest.approx(100 * np.mean(first))


def middle(images):
    things = np.zeros(images.shape[:3], dtype=bool)
    things[:, 40:80, 40:80] = True
    return things


def test_detail_is_what_lanczos_lacks(scenes):
    small = measures.resized(scenes, 64)
    enlarged = measures.resized(small, 128, Image.Resampling.LANCZOS)
    assert measures.detail(enlarged, middle(scenes))["detail"] < (
        0.5 * measures.detail(scenes, middle(scenes))["detail"]
    )


def test_grain_on_the_ground_is_no_detail_of_things():
    plain = np.full((2, 128, 128, 3), 90, dtype=np.uint8)
    plain[:, 45:75, 45:75] = 200
    grainy = plain.copy()
    grainy[:, :30] += np.random.default_rng(0).integers(0, 9, (2, 30, 128, 3), dtype=np.uint8)
    before, after = (measures.detail(each, middle(plain)) for each in (plain, grainy))
    assert after["detail_things"] == before["detail_things"]
    assert before["detail_ground"] < 0.5 < after["detail_ground"]


@dataclass
class ColourJudge:
    """Calls the red pixels things of the first colour."""

    def segment(self, images):
        return {"colour": (images[..., 0] > 128).astype(np.uint8)}


def test_a_copy_is_found_and_another_outline_is_none():
    rows, columns = np.indices((128, 128))
    disc = (rows - 40) ** 2 + (columns - 40) ** 2 < 18**2
    copy = (rows - 100) ** 2 + (columns - 100) ** 2 < 9**2
    stripe = abs(rows - 110) < 2
    images = [
        np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
        for mask in (disc, disc | copy, disc | stripe)
    ]
    found = [measures.copies(one[None], disc[None], ColourJudge()) for one in images]
    assert found == [0, 100, 0]


def test_seams_are_seen_wherever_they_lie(scenes):
    clean = measures.worst_seam(scenes, 4)
    stepped = scenes.astype(int)
    stepped[:, :, 84:] += 12
    assert measures.worst_seam(np.clip(stepped, 0, 255).astype(np.uint8), 4) > 2 * clean


def test_a_seam_in_images_of_all_seeds_is_told_from_the_edges_of_things():
    drawn = [
        np.stack([render(each.scene, 128).image for each in draw_orders(seed, 6, 1)]) for seed in (3, 4, 5)
    ]
    found = measures.worst_line(drawn, 4)
    assert found["line"] <= found["line_upper"] < max(measures.worst_seam(each, 4) for each in drawn)
    stepped = [each.astype(int) for each in drawn]
    for each in stepped:
        each[:, 84:] += 12
    seam = measures.worst_line([np.clip(each, 0, 255).astype(np.uint8) for each in stepped], 4)
    assert seam["line"] > 2 * found["line"]


def test_saturation_is_that_of_the_most_colourful_parts(scenes):
    grey = np.broadcast_to(scenes.mean(axis=3, keepdims=True), scenes.shape).astype(np.uint8)
    assert measures.saturation(grey) == 0
    assert measures.saturation((scenes // 2 + grey // 2).astype(np.uint8)) < measures.saturation(scenes)


def test_distance_of_scenes_to_themselves_is_least(scenes):
    torch.manual_seed(0)
    judge = Judge(Probe())
    near = measures.distances(scenes, scenes, judge)
    far = measures.distances(255 - scenes, scenes, judge)
    assert near["fid"] == pytest.approx(0, abs=1e-2)
    assert far["fid"] > near["fid"]
    assert far["kid"] > near["kid"]


def run(**ours):
    plain = {"lost": 0, "repeated": 0, "copied": 0, "detail_things": 2.0, "detail_ground": 0.4}
    truth = {"detail_ground": 0.5}
    return gate_figures({"4x Lanczos": plain, "4x drawn scene": truth, "row": plain | ours}, "row")


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        ({"detail_things": 3.0, "detail_ground": 0.55}, []),
        ({"lost": 6, "detail_things": 3.0}, ["lost_more"]),
        ({"repeated": 6, "copied": 7, "detail_things": 1.0}, ["repeated_more", "copied_more", "detail_gain"]),
        ({"detail_ground": 0.7}, ["grain"]),
        ({"line_upper": 1.3}, ["line"]),
    ],
)
def test_the_gate_names_what_is_missed(ours, words):
    lines = {"line": 1.1, "line_upper": ours.get("line_upper", 1.15)}
    runs = [run(**ours)] * 3
    said = gates.missed(REQUIREMENTS, runs, gates.mean(runs) | lines)
    assert [line.split()[0] for line in said] == words


def test_images_are_generated_once(tmp_path: Path):
    row = Row(name="some, row", scale=2)
    made = []

    def make():
        made.append(1)
        return Generated(np.ones((1, 2, 2, 3), np.uint8), 3.0, 0.5)

    first, second = stored_row(tmp_path, row, make), stored_row(tmp_path, row, make)
    assert made == [1]
    assert (second.calls, second.seconds) == (first.calls, first.seconds) == (3.0, 0.5)
    np.testing.assert_array_equal(first.images, second.images)


def test_every_method_generates_at_its_size(orders, scenes):
    torch.manual_seed(0)
    vae = build_autoencoder((16, 32, 32), 8)
    pipeline = assemble(vae, Denoiser(DenoiserOptions(widths=(16, 16, 16), depths=(1, 1, 1)), 8))
    base = measures.resized(scenes[:1], 64)
    calls = {}
    for row in (
        Row(name="lanczos", scale=2, way="lanczos"),
        Row(name="autoencoder", scale=2, way="autoencoder"),
        Row(name="scene", scale=2, way="scene"),
        Row(name="ours", scale=2, settings={"slider": 0.5}, conditioning="base"),
    ):
        generated = generate_row(row, pipeline, orders[:1], base, seed=1)
        assert generated.images.shape == (1, 128, 128, 3)
        calls[row.name] = generated.calls
    assert calls["lanczos"] == calls["autoencoder"] == calls["scene"] == 0
    assert calls["ours"] >= 20 * 4  # a canvas of two by two patches, twenty steps
    line = dict.fromkeys(COLUMNS, 1)
    assert "| Lanczos | 1 |" in table({"2x Lanczos": line}, 2)


def test_photographs_are_compared_with_what_they_were(tmp_path, monkeypatch, capsys):
    colours = np.add.outer(np.arange(90), np.arange(140)).astype(np.uint8)[..., None] + np.array([0, 40, 90])
    Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "a.png")
    asked = []

    def enlarge(photo, scale, model, seed):
        asked.append((photo.shape, scale, seed))
        yield "dark", photo // 2
        yield "same", photo

    monkeypatch.setattr(photos, "enlarge", enlarge)
    card = tmp_path / "card.json"
    photos.photos(tmp_path / "a.png", tmp_path / "a.png", seed=4, card=card, figure=tmp_path / "b.png")
    assert asked == [((128, 128, 3), 2, 4), ((128, 128, 3), 2, 5)]
    found = json.loads(card.read_text())["figures"]
    assert list(found) == ["photo", "dark", "same"]
    assert found["same"] == found["photo"]
    assert found["dark"]["psnr"] < 15 < 90 < found["same"]["psnr"]
    assert (found["dark"]["steps"], found["same"]["steps"]) == (pytest.approx(50, abs=5), 100)
    assert np.asarray(Image.open(tmp_path / "b.png")).shape == (3 * 128, 256, 3)
    shown = capsys.readouterr().out
    assert "| same | 99 | 1 | 100 |" in shown
    assert "LPIPS" not in shown  # without the weights
    monkeypatch.setattr(photos, "load_lpips", lambda source: source)
    monkeypatch.setattr(
        photos, "lpips", lambda network, images, wanted: float((images[0] != wanted[0]).any())
    )
    photos.photos(card=card, lpips_weights=tmp_path / "alexnet.ckpt")  # those that other packages hold
    report = json.loads(card.read_text())
    assert report["judged_on"]["images"] == ["astronaut.png", "chelsea.png", "china.jpg", "flower.jpg"]
    assert [row["lpips"] for row in report["figures"].values()] == [0, 1, 0]
    assert "| SSIM | LPIPS |" in capsys.readouterr().out
