# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from photoworld.testing import fill
from PIL import Image
from recipes.tiny_clip import judge as judging
from recipes.tiny_clip import train as training
from recipes.tiny_clip.demo_scenes import demo_scenes
from recipes.tiny_clip.dense import VARIANTS, LastBlock, dense_embeddings, mean_iou, segment
from recipes.tiny_clip.network import (
    Size,
    classification_losses,
    contrastive_loss,
    first_tokens,
    pooled_token,
    targets,
    text_embedding,
)
from recipes.tiny_clip.scenes import (
    MIXED,
    WORDS,
    betrayed_by_colour,
    claimed,
    loose_caption,
    pool_scene,
    shown,
    strict_caption,
    true_of,
)
from recipes.tiny_clip.ship import ASSETS, WEIGHTS, save, ship, training_facts
from recipes.tiny_clip.tokens import CONTEXT_LENGTH, IDS, VOCABULARY, encode
from recipes.tiny_clip.train import (
    COLOURLESS,
    STATE,
    Batches,
    CLIPModule,
    Plan,
    train_clip,
    without_colour,
)
from recipes.tiny_clip.zero_shot import recall_at_1, render_scenes
from recipes.training import CHECKPOINT
from safetensors.torch import load_file
from shapeworld import Background, Scene, Thing
from shapeworld.vocabulary import COLOURS
from torch.nn import functional as F

lightning = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")
SMALL = Size(embed_dim=16, layers=6, width=16, head_width=8, text_layers=1, text_width=16, text_heads=2)


def scene(*things, ground="tiles"):
    drawn = tuple(
        Thing(material=m, colour=c, shape=s, x=0.3 + 0.2 * i, y=0.5, radius=0.15)
        for i, (m, c, s) in enumerate(things)
    )
    return Scene(background=Background(kind=ground, seed=1), things=drawn)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SMALL.build().eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "tiny"
    save(model, SMALL, out, {"seed": 7})
    return out


def test_captions_are_true_of_their_scene_and_within_the_vocabulary():
    for i in range(200):
        drawn, rng = pool_scene(5, i), np.random.default_rng(i)
        texts = [strict_caption(drawn, rng), loose_caption(drawn, rng)]
        assert true_of(claimed(texts), shown([drawn])).all()
        assert {word for text in texts for word in text.split()} <= set(WORDS)
        assert max(len(text.split()) for text in texts) <= CONTEXT_LENGTH - 2


def test_a_caption_is_true_of_a_scene_that_holds_all_it_claims():
    scenes = [
        scene(("striped", "red", "ring")),
        scene(("solid", "red", "circle"), ("striped", "blue", "ring"), ground="waves"),
        scene(ground="waves"),
    ]
    cases = {
        "a red thing": (True, True, False),
        "there is a red ring": (True, False, False),
        "a striped ring on tiles": (True, False, False),
        "a thing and a circle": (False, True, False),
        "a photo of a ring and a striped thing and a red thing": (False, False, False),
        "a picture of waves": (False, True, True),
    }
    found = true_of(claimed(list(cases)), shown(scenes))
    assert {text: tuple(row) for text, row in zip(cases, found.tolist(), strict=True)} == cases


def test_what_names_no_colour_is_compared_with_grey_images_only():
    texts = claimed(["a star", "a striped ring and a red thing", "a photo of waves", "a white circle"])
    found = betrayed_by_colour(texts, np.array([False, True]))
    assert found.tolist() == [[True, False], [False, False], [False, False], [False, False]]


def test_a_grey_image_shows_no_colour_and_no_caption_names_one():
    drawn = scene(("solid", "red", "circle"), ("striped", "blue", "ring"))
    facts = shown([drawn, drawn], np.array([True, False]))
    wanted = targets(facts)
    assert wanted["colour"].sum(dim=1).tolist() == [0, 1]
    assert wanted["colour_shape"].sum(dim=1).tolist() == [0, 1]
    assert wanted["shape"].sum(dim=1).tolist() == [1, 1]
    texts = [loose_caption(drawn, np.random.default_rng(i), attributes=COLOURLESS) for i in range(50)]
    assert not {word for text in texts for word in text.split()} & set(COLOURS)
    assert true_of(claimed(texts), facts)[:, 0].all()


def test_colours_go_by_random_weights():
    images = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    found = without_colour(images, np.random.default_rng(0)).astype(int)
    assert (found == found[..., :1]).all()
    assert (found >= images.min(axis=-1, keepdims=True).astype(int) - 1).all()
    assert (found <= images.max(axis=-1, keepdims=True).astype(int) + 1).all()


def test_targets_share_the_picture_among_its_things():
    wanted = targets(shown([scene(("solid", "red", "circle"), ("solid", "blue", "ring")), scene()]))
    assert wanted["colour"][0, COLOURS.index("red")] == 0.5
    assert wanted["material"][0].max() == 1
    assert wanted["colour_shape"].sum(dim=1).tolist() == [1, 0]
    assert wanted["ground"].sum(dim=1).tolist() == [1, 1]


def test_losses_start_at_chance():
    drawn = shown([pool_scene(1, i) for i in range(64)])
    flat = {name: torch.zeros(64, size) for name, size in (("material", 6), ("ground", 5))}
    losses = classification_losses(flat, drawn)
    assert losses["material"].item() == pytest.approx(np.log(6))
    assert losses["ground"].item() == pytest.approx(np.log(5))
    same = F.normalize(torch.ones(6, 4), dim=-1)
    left_out = torch.eye(6, dtype=torch.bool)
    left_out[0, 1] = True
    loss, chance = contrastive_loss(same, same, torch.tensor(10.0), left_out)
    assert loss.item() == pytest.approx(chance.item())
    assert chance.item() == pytest.approx((10 * np.log(6) + 2 * np.log(5)) / 12)


def test_pairs_left_out_of_the_contrast_get_no_gradient():
    torch.manual_seed(0)
    image, text = F.normalize(torch.randn(2, 3, 4), dim=-1)
    text.requires_grad_()
    left_out = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    left_out[1:, 0] = True  # image 0 meets its own caption alone, and that caption no other image
    contrastive_loss(image, text, torch.tensor(5.0), left_out)[0].backward()
    assert text.grad[0].abs().max() == 0
    assert text.grad[1].abs().max() > 0


def test_the_written_out_forward_is_that_of_open_clip(model):
    images, tokens = torch.randn(3, 3, 64, 64), encode([["a", "red", "star"], ["a"], WORDS[:9]])
    with torch.no_grad():
        assert torch.allclose(
            pooled_token(model, images) @ model.visual.proj, model.encode_image(images), atol=1e-5
        )
        assert torch.allclose(
            text_embedding(model, tokens), model.encode_text(tokens, normalize=True), atol=1e-5
        )


def test_the_tokenizer_survives_open_clip(folder):
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    sentence = "there is a striped red star on leaves"
    assert torch.equal(tokenize([sentence]), encode([sentence.split()]))
    assert torch.equal(tokenize(["There is a striped, red STAR on leaves!"]), encode([sentence.split()]))
    assert torch.equal(tokenize(["a zebra"]), encode([["a", "?"]]))
    assert tokenize(["a " * 99]).shape == (1, CONTEXT_LENGTH)
    assert tokenize(["a " * 99])[0, -1] == IDS["<end>"] == len(VOCABULARY) - 1


def test_open_clip_loads_the_shipped_folder_unchanged(model, folder):
    name = f"local-dir:{folder}"
    loaded, _, preprocess = open_clip.create_model_and_transforms(name)
    sample = render_scenes(3, 4, "test", MIXED)
    judged = judging.Judged(folder)
    assert training_facts(folder) == {"seed": 7}
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float())
    pixels = torch.cat(judged.inputs(sample))
    assert torch.allclose(pixels, training.to_input(sample.images), atol=1e-6)
    assert (
        preprocess.transforms[-1].std == (0.25, 0.25, 0.25)
        or list(preprocess.transforms[-1].std) == [0.25] * 3
    )


def test_the_vanilla_last_block_is_the_model_itself(model):
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = dense_embeddings(model.visual, images)
        visual = model.visual
        wanted = visual.ln_post(visual.transformer(first_tokens(visual, images)))[:, 1:] @ visual.proj
    assert torch.allclose(tokens["vanilla"], F.normalize(wanted, dim=-1), atol=1e-5)
    assert set(tokens) == set(VARIANTS)
    assert not torch.allclose(tokens["q-q + k-k"], tokens["q-q + k-k, middle 3 4 5"], atol=1e-3)


def test_the_same_map_in_the_middle_changes_nothing(model):
    images = torch.randn(1, 3, 64, 64)
    plain = LastBlock(maps=("qq", "kk"), residual=False)
    variants = {"plain": plain, "last as middle": replace(plain, middle=(6,))}
    with torch.no_grad():
        tokens = dense_embeddings(model.visual, images, variants)
    assert torch.allclose(tokens["plain"], tokens["last as middle"], atol=1e-5)


def test_mean_iou_by_hand():
    truth, labels = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 0])
    assert mean_iou(labels, truth, 4) == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)


def test_segment_finds_the_quadrant():
    names, ground = torch.eye(4)[:2], torch.eye(4)[2:]
    tokens = torch.eye(4)[[0, 2, 3, 1]][None]  # (1, 4, 4), a grid of 2 x 2
    labels, among_things = segment(tokens, names, ground, 8)
    assert labels[0, [0, 0, 7, 7], [0, 7, 0, 7]].tolist() == [1, 0, 0, 2]
    assert set(among_things.unique().tolist()) == {1, 2}


def test_equal_captions_are_right_for_each_other():
    image = torch.eye(3)
    text = torch.eye(3)[[1, 0, 2]]
    assert recall_at_1(image, text, ["a", "a", "b"]) == {"image_to_text": 1, "text_to_image": 1}
    assert recall_at_1(image, text, ["a", "c", "b"])["image_to_text"] == pytest.approx(1 / 3)


@pytest.fixture
def plan():
    return Plan(steps=8, warm_steps=2, examine_steps=2, batch_size=8, ramp_steps=2, size=SMALL)


@pytest.fixture
def pool(monkeypatch):
    real = training.single_things
    monkeypatch.setattr(training, "single_things", lambda seed, count, split: real(seed, 4, split))
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)


@lightning
def test_a_resumed_run_equals_an_uninterrupted_one(plan, pool, tmp_path):
    for name, stops in (("whole", (None,)), ("parts", (4, None))):
        for stop in stops:
            train_clip(plan, Batches(plan, pool), tmp_path / name, stop_at=stop)
    whole, parts = (torch.load(tmp_path / n / CHECKPOINT, weights_only=True) for n in ("whole", "parts"))
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][key]), key
    assert whole["figures"] == parts["figures"]
    assert whole["contrast_from"] == parts["contrast_from"] == 2
    assert whole["figures"]["loss_strict"] > 0
    assert "novel_pair" in whole["figures"]


@lightning
def test_a_finished_run_ships_what_it_learnt(plan, pool, tmp_path):
    trained = train_clip(plan, Batches(plan, pool), tmp_path)
    (tmp_path / STATE).write_text('{"device": "a test"}')
    ship(tmp_path, output=tmp_path / "shipped")
    facts = training_facts(tmp_path / "shipped")
    assert (facts["steps"], facts["images_seen"], facts["contrast_from"]) == (8, 64, 2)
    assert facts["last_row"]["loss_strict"] > 0
    assert facts["device"] == "a test"
    loaded = open_clip.create_model(f"local-dir:{tmp_path / 'shipped'}")
    assert torch.equal(loaded.visual.proj, trained.model.visual.proj.half().float())


@lightning
def test_a_run_refuses_another_plan_but_more_steps(plan, pool, tmp_path):
    train_clip(plan, Batches(plan, pool), tmp_path, stop_at=2)
    train_clip(replace(plan, steps=99), Batches(replace(plan, steps=99), pool), tmp_path, stop_at=4)
    with pytest.raises(ValueError, match="plan must be that of"):
        train_clip(replace(plan, seed=1), Batches(replace(plan, seed=1), pool), tmp_path)


@lightning
def test_the_second_phase_trains_both_towers_and_the_heads(plan, pool, tmp_path):
    before = CLIPModule(plan).state_dict()
    train_clip(
        replace(plan, steps=3, warm_steps=0), Batches(replace(plan, steps=3, warm_steps=0), pool), tmp_path
    )
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    moved = {name for name, value in state["state_dict"].items() if not torch.equal(value, before[name])}
    towers = {"visual.proj", "text_projection", "token_embedding.weight", "visual.conv1.weight"}
    assert moved >= {f"model.{name}" for name in towers} | {"heads.linears.shape.weight"}
    assert state["figures"]["chance_strict"] < np.log(8) + 1e-4


def test_a_batch_depends_on_its_step_only(plan, pool):
    first, again = (Batches(plan, pool)(3) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert first.scenes == again.scenes
    assert not torch.equal(first.images, Batches(plan, pool)(4).images)


@pytest.fixture
def photos(monkeypatch, tmp_path, recipes):
    monkeypatch.setenv("PHOTOWORLD", str(fill(tmp_path / "photoworld")))
    file = tmp_path / "photos.npy"
    recipes("clip", "pool", "-o", file, "--world", "photo", "--count", "12", "--processes", "1")
    return np.load(file)


def test_of_composites_only_the_colours_are_said(plan, pool, photos):
    plan = replace(plan, photo_share=0.5, grey_share=1.0)
    batch = Batches(plan, pool, photos)(3)
    assert batch.photos == 4
    assert batch.grey.tolist() == [True] * 4 + [False] * 4
    rng = np.random.default_rng(0)
    for composite, attributes in list(batch.sayable())[4:]:
        text = loose_caption(composite, rng, attributes=attributes)
        assert claimed([text]).count == text.count("thing") > 0
        assert {"red", "blue"} & set(text.split())
        assert true_of(claimed([text]), shown(batch.scenes))[0, 4:].any()
    # what a drawn scene shows, a composite does not
    assert not true_of(claimed(["a red circle"]), shown(batch.scenes))[0, 4:].any()
    assert targets(shown(batch.scenes))["colour_shape"][4:].sum() == 0
    with pytest.raises(ValueError, match="photos must hold 4"):
        Batches(plan, pool, photos[:1])


@lightning
def test_training_goes_on_from_a_trained_model(plan, pool, photos, folder, tmp_path):
    plan = replace(plan, photo_share=0.5, learning_rate=0.0, classification=0.0)
    trained = train_clip(plan, Batches(plan, pool, photos), tmp_path / "run", start=folder, stop_at=2)
    assert trained.contrast_from == 0
    shipped = load_file(folder / WEIGHTS)
    assert torch.equal(trained.model.visual.proj, shipped["visual.proj"].float())


def test_a_random_model_judges_at_chance_and_fails_its_gate(folder, tmp_path, recipes):
    card = tmp_path / "card.json"
    sizes = ("--singles", 32, "--mixed", 8, "--segmented", 2)
    assert recipes("clip", "judge", folder, "--card", card, *sizes).exit_code == 1
    assert not card.exists()
    assert recipes("clip", "judge", folder, "--card", card, *sizes, "--write").exit_code == 1
    report = json.loads(card.read_text())
    assert report["figures"]["zero_shot"]["shape"] < 0.3
    assert report["figures"]["zero_shot"]["pair"] < 0.1
    assert report["figures"]["recall_at_1"]["image_to_text"] < 0.5
    assert [each["seeds"] for each in report["readings"]] == [[2024, 2034, 2044]]
    assert set(report["figures"]["dense"]["colour"]) == set(VARIANTS)
    assert report["figures"]["dense"]["colour"]["vanilla"]["miou"] < 25
    assert len(report["verdict"]["missed_requirements"]) == 2
    assert report["training"] == {"seed": 7}


def test_the_demo_shows_the_scenes_of_the_recipe(tmp_path):
    demo_scenes(output=tmp_path, number=6)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == sorted(file.name for file in (ASSETS / "scenes").iterdir())
    assert (tmp_path / "classes.json").read_text() == (ASSETS / "scenes" / "classes.json").read_text()
    for name in names:
        if name.endswith(".png"):
            with Image.open(tmp_path / name) as drawn, Image.open(ASSETS / "scenes" / name) as shipped:
                np.testing.assert_array_equal(np.asarray(drawn), np.asarray(shipped))
