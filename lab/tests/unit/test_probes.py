# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from recipes.probes import commands, training
from recipes.probes.judging import WEIGHTS, Judge, accuracy
from recipes.probes.network import NAMES, Opinion, Probe
from recipes.probes.training import ONLY_NONE, ProbeModule, ProbeScenes, labels, train
from recipes.training import Run
from safetensors.torch import load_file, save_file
from shapeworld import Background, Scene, Thing, render
from shapeworld.vocabulary import COLOURS


def image(*things, side=64):
    drawn = tuple(
        Thing(material="solid", colour=colour, shape=shape, x=x, y=0.5, radius=0.15)
        for colour, shape, x in things
    )
    return render(Scene(background=Background(kind="tiles", seed=1), things=drawn), side)


class Oracle(Probe):
    """Returns what it was given: the masks and the only thing of one rendering, for every image."""

    def __init__(self, rendering):
        super().__init__()
        self.rendering = rendering

    def forward(self, x):
        pixels, things = {}, {}
        for key, names in NAMES.items():
            mask = torch.from_numpy(self.rendering.semantic(key)).long()
            one_hot = torch.nn.functional.one_hot(mask, 1 + len(names)).permute(2, 0, 1).float()
            pixels[key] = one_hot.expand(len(x), -1, -1, -1)
            name = names.index(getattr(self.rendering.scene.things[0], key))
            things[key] = torch.eye(len(names))[name].expand(len(x), -1)
        return Opinion(pixels, things)


@pytest.fixture
def untrained(tmp_path):
    torch.manual_seed(0)
    probe = Probe()
    weights = {k: v.half().contiguous() for k, v in probe.state_dict().items() if v.is_floating_point()}
    save_file(weights, tmp_path / "probe.safetensors")
    return tmp_path / "probe.safetensors"


@pytest.mark.parametrize("side", [64, 128])
def test_an_opinion_covers_every_pixel_and_every_name(side):
    opinion = Probe().eval()(torch.rand(2, 3, side, side))
    for key, names in NAMES.items():
        assert opinion.pixels[key].shape == (2, 1 + len(names), side, side)
        assert opinion.things[key].shape == (2, len(names))


def test_the_judge_counts_patches_and_leaves_blots_out():
    two = image(("red", "circle", 0.25), ("red", "circle", 0.75))
    judge = Judge(Oracle(two))
    images = np.zeros((1, 64, 64, 3), np.uint8)
    assert judge.count(images).tolist() == [2]
    assert judge.colours(images) == [{"red"}]
    blot = image(("red", "circle", 0.25))
    mask = blot.semantic("colour")
    mask[2:4, 2:4] = 1 + COLOURS.index("blue")
    judge.segment = lambda _: {"colour": mask[None]}
    assert judge.count(images).tolist() == [1]
    assert judge.colours(images) == [{"red"}]


def test_the_judge_names_the_only_thing():
    judge = Judge(Oracle(image(("green", "star", 0.5))))
    said = judge.classify(np.zeros((3, 64, 64, 3), np.uint8))
    assert {key: NAMES[key][int(places[0])] for key, places in said.items()} == {
        "shape": "star",
        "colour": "green",
        "material": "solid",
    }
    assert all(len(places) == 3 for places in said.values())


def test_labels_name_the_only_thing_and_no_other():
    one, two = image(("red", "circle", 0.5)), image(("red", "circle", 0.25), ("blue", "ring", 0.75))
    assert labels(one)["colour_thing"] == COLOURS.index("red")
    assert labels(two)["colour_thing"] == ONLY_NONE
    assert set(torch.unique(labels(two)["colour_pixels"]).tolist()) == {
        0,
        1 + COLOURS.index("red"),
        1 + COLOURS.index("blue"),
    }


def test_training_images_depend_on_seed_and_index_only():
    first, again = ProbeScenes(8, 3).sample(5), ProbeScenes(2, 3)(2)
    assert all(torch.equal(first[key], again[key][1]) for key in first)
    assert not torch.equal(first["image"], ProbeScenes(8, 4).sample(5)["image"])
    assert first["image"].shape == (3, 64, 64)
    assert 0 <= first["image"].min() <= first["image"].max() <= 1


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")
def test_a_killed_run_resumes_to_the_same_probe(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "Run", lambda **options: Run(save_every=2, device="cpu", **options))
    options = {"max_steps": 4, "batch_size": 2}
    draw = ProbeScenes.__call__

    def dying(self, step):
        if step == 3:
            raise OSError("killed")
        return draw(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(ProbeScenes, "__call__", dying)
        with pytest.raises(OSError, match="killed"):
            train(output=tmp_path / "parts", **options)
    for name in ("whole", "parts"):
        train(output=tmp_path / name, **options)
    whole, parts = (load_file(tmp_path / name / "probe.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log\\(\\)`")
def test_the_loss_of_a_batch_without_single_things_is_finite():
    torch.manual_seed(0)
    module = ProbeModule(Probe(), 10)
    batch = {
        key: torch.stack([value] * 2)
        for key, value in labels(image(("red", "circle", 0.25), ("blue", "ring", 0.75))).items()
    }
    loss = module.training_step({"image": torch.rand(2, 3, 64, 64), **batch}, 0)
    loss.backward()
    assert torch.isfinite(loss)
    grads = [p.grad for name, p in module.named_parameters() if not name.startswith("probe.things")]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)


def test_an_untrained_probe_is_at_chance(untrained):
    figures = accuracy(Judge.load(untrained), count=24, seed=5)
    assert set(figures) == {"full", "simple", "novel"}
    assert figures["simple"]["shape_right"] < 50
    assert figures["simple"]["shape_miou"] < 30


def test_foreign_weights_are_refused(tmp_path):
    save_file({"down.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not hold a probe"):
        Judge.load(tmp_path / "other.safetensors")


def test_ship_and_judge_write_the_card(untrained, tmp_path, monkeypatch, recipes):
    (tmp_path / "training.json").write_text('{"steps": 1}', "utf-8")
    shipped = tmp_path / "cards" / "probe.safetensors"
    shipped.parent.mkdir()
    monkeypatch.setattr(commands, "WEIGHTS", shipped)
    monkeypatch.setattr(commands, "CARD", shipped.with_name("probe.json"))
    monkeypatch.setattr(
        commands.Judge, "load", classmethod(lambda cls: cls(Oracle(image(("red", "star", 0.5)))))
    )
    assert recipes("probes", "ship", tmp_path).exit_code == 0
    assert shipped.read_bytes() == untrained.read_bytes()
    result = recipes("probes", "judge", "--count", 4, "--training", tmp_path / "training.json", "--write")
    assert result.exit_code == 0, result.stderr
    card = json.loads((shipped.parent / "probe.json").read_text("utf-8"))
    assert card["training"] == {"steps": 1}
    assert card["judged_on"] == {"count": 4, "seed": 1000}


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the probe is not trained yet")
def test_the_shipped_probe_judges_well():
    figures = accuracy(Judge.load(), count=60, seed=77)
    assert figures["simple"]["colour_right"] >= 95
    assert figures["simple"]["shape_right"] >= 90
    assert figures["simple"]["count_right"] >= 85
