# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from itaclip import ITACLIP, AttentionConfig
from itaclip.attention import build_attention
from itaclip.encoder import build_encoder
from itaclip.text.prompts import get_templates
from recipes.gates import missed
from recipes.segmentation import commands, memory, prior
from recipes.segmentation.commands import REQUIREMENTS, WITHOUT_PRIOR, with_margins
from recipes.segmentation.figure import draw_figure
from recipes.segmentation.measure import Bench, Figures, Job
from recipes.segmentation.memory import RememberingEncoder
from recipes.segmentation.prior import PriorITACLIP, share_foreground
from recipes.segmentation.report import entry, jobs_of, markdown
from recipes.segmentation.rows import BARE, BASE, UNREFINED, preset, vary, with_prior
from recipes.segmentation.scenes import CLASSES, draw, name_of
from recipes.segmentation.search import CHOICES, climb
from recipes.segmentation.tables import Table, tables
from recipes.segmentation.texts import auxiliary
from recipes.tiny_clip.network import Size
from recipes.tiny_clip.ship import save
from recipes.tiny_clip.tokens import VOCABULARY
from shapeworld import Thing

SMALL = Size(embed_dim=16, layers=6, width=16, head_width=8, text_layers=1, text_width=16, text_heads=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("model") / "tiny"
    save(SMALL.build().eval(), SMALL, out, {"seed": 7})
    return out


@pytest.fixture
def bench(folder, tmp_path):
    return Bench(folder, 2, tmp_path / "results.jsonl")


# scenes


def test_both_views_show_the_same_scenes_with_their_classes():
    wide, whole = draw("windows", 3, 4), draw("whole", 3, 4)
    assert {image.shape for image in wide.images} == {(128, 128, 3)}
    assert {image.shape for image in whole.images} == {(64, 64, 3)}
    for kind in CLASSES:
        assert wide.truth[kind].shape == (4, 128, 128)
        for one, other in zip(wide.truth[kind], whole.truth[kind], strict=True):
            assert set(one.unique().tolist()) == set(other.unique().tolist())
    assert not torch.equal(wide.truth["shape"], draw("windows", 4, 4).truth["shape"])


def test_a_class_of_each_kind_is_named_after_its_thing():
    thing = Thing(shape="ring", colour="pink", material="wavy", x=0.5, y=0.5, radius=0.2)
    names = [name_of(thing, kind) for kind in CLASSES]
    assert names == ["pink thing", "wavy pink thing", "ring"]
    assert all(name in CLASSES[kind] for name, kind in zip(names, CLASSES, strict=True))


def test_labels_agree_between_the_kinds():
    truth = draw("whole", 1, 8).truth
    colour, pair = truth["colour"], truth["colour x material"]
    assert torch.equal(torch.where(pair > 0, (pair - 1) // 6 + 1, 0), colour)
    assert torch.equal(truth["shape"] > 0, colour > 0)


def test_auxiliary_texts_stand_for_their_class():
    for kind, names in CLASSES.items():
        for aux in ("known words", "English"):
            texts = auxiliary(kind, aux)
            assert len(texts) == len(names) == len(set(texts))
        known = auxiliary(kind, "known words")
        assert {word for text in known for word in text.split()} <= set(VOCABULARY)
    assert auxiliary("shape", "known words")[0] == "thing and the thing is a circle"
    assert auxiliary("colour x material", "known words")[1] == "thing and the thing is striped and red"


# memory


ATTENTIONS = {
    "itaclip": build_attention(AttentionConfig(mid_layers=(3, 4, 4))),
    "vanilla": build_attention(AttentionConfig(pairs=("qk",), mid_layers=(), ffn=True)),
    "value": build_attention(AttentionConfig(strategy="value", residual=False)),
}


def test_a_remembered_tower_gives_what_the_tower_gives(bench, monkeypatch):
    plain, images = build_encoder(bench.model), torch.randn(5, 3, 64, 64)
    wanted = {name: plain(images, attention) for name, attention in ATTENTIONS.items()}
    encoder = RememberingEncoder(plain.tower)
    runs = []
    embed = plain.tower.embed
    monkeypatch.setattr(plain.tower, "embed", lambda x, mode: runs.append(len(x)) or embed(x, mode))
    for _ in range(2):
        for name, attention in ATTENTIONS.items():
            for part in (slice(0, 2), slice(1, 5)):
                found = encoder(images[part], attention)
                torch.testing.assert_close(found, wanted[name][part], atol=1e-5, rtol=1e-5)
    assert runs == [2, 3]
    encoder.forget()
    encoder(torch.cat([images[:1], images[:1]]), ATTENTIONS["value"])
    assert runs == [2, 3, 1]


def test_a_remembered_embedding_is_that_of_the_model(bench, monkeypatch):
    images = torch.randn(4, 3, 64, 64)
    wanted = bench.model.encode_image(images)
    encoder = RememberingEncoder(build_encoder(bench.model).tower)
    # any other size is brought to the one that the tower was trained at
    larger = torch.nn.functional.interpolate(images, size=(128, 128), mode="nearest")
    torch.testing.assert_close(prior.pooled(encoder.tower, larger), wanted, atol=1e-5, rtol=1e-5)
    runs = []
    monkeypatch.setattr(memory, "pooled", lambda tower, x: runs.append(len(x)) or prior.pooled(tower, x))
    for part in (slice(0, 2), slice(1, 4), slice(0, 4)):
        torch.testing.assert_close(encoder.pooled(images[part]), wanted[part], atol=1e-5, rtol=1e-5)
    assert runs == [2, 2]
    encoder.forget()
    encoder.pooled(images[:1])
    assert runs == [2, 2, 1]


def test_a_full_memory_still_gives_the_same(bench):
    images = torch.randn(3, 3, 64, 64)
    plain = build_encoder(bench.model)
    full = RememberingEncoder(plain.tower, most=1)
    full(images[:1], ATTENTIONS["value"])
    assert full.is_crowded
    wanted = plain(images, ATTENTIONS["itaclip"])
    torch.testing.assert_close(full(images, ATTENTIONS["itaclip"]), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 4.0], ids=str)
def test_the_bench_segments_as_the_library_does(bench, weight):
    sample = draw("windows", 0, 2)
    row = replace(UNREFINED, config=replace(UNREFINED.config, alpha=0.2))
    row = with_prior(row, weight=weight) if weight else row
    if weight:
        library = PriorITACLIP(bench.model, bench.tokenizer, row.config, row.prior)
    else:
        library = ITACLIP(bench.model, bench.tokenizer, row.config)
    library.set_classes(list(CLASSES["colour"]), background=list(row.background))
    for theirs, ours in zip(
        library.predict(sample.images), bench.segmenter(row, "colour").predict(sample.images), strict=True
    ):
        assert (theirs.labels == ours.labels).float().mean() > 0.999


# prior


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_prior_shares_out_the_foreground_only():
    scores, whole = noise(5, 3, 4), noise(5, 3, 4, seed=1)
    foreground = torch.tensor([False, True, True, False, True])
    shared = share_foreground(scores, whole, foreground, weight=0.6, logit_scale=7.0)
    before, after = (7 * scores).softmax(0), (7 * shared).softmax(0)
    assert torch.equal(shared[~foreground], scores[~foreground])
    assert torch.allclose(after[~foreground], before[~foreground], atol=1e-6)
    # among themselves, by Bayes: what the patch says times what the window says
    expected = (7 * (scores + 0.6 * whole))[foreground].softmax(0)
    assert torch.allclose(after[foreground] / after[foreground].sum(0), expected, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)


def test_a_prior_that_is_the_same_for_all_names_changes_nothing():
    scores, everything = noise(4, 3, 4), torch.ones(4, dtype=torch.bool)
    whole = noise(1, 3, 4, seed=1).expand(4, -1, -1)
    shared = share_foreground(scores, whole, everything, weight=2.0, logit_scale=40.0)
    assert torch.allclose(shared, scores, atol=1e-5)


def test_the_prior_of_a_patch_is_a_mean_of_cosines_by_distance(bench):
    row = with_prior(UNREFINED, weight=3.0, sides=(0.5, 0.67))
    row = replace(row, config=replace(row.config, batch_size=3))
    segmenter = PriorITACLIP(bench.model, bench.tokenizer, row.config, row.prior)
    segmenter.set_classes(["red thing", "blue thing", "ring"], background=["tiles"])
    prepared = segmenter.windows.prepare(draw("windows", 0, 1).images[0])
    (scores,) = segmenter.windows.encode([prepared], lambda features: features[:, :4])
    found = segmenter._prior_scores(prepared, scores.grid)
    means = []
    for view in prepared.views:
        total, weights = torch.zeros(4), 0.0
        box = list(prepared.plan)[1]
        # the patch in the third row and second column of the second window
        down = (box.top + 2.5 / 8 * (box.bottom - box.top)) / prepared.plan.height
        across = (box.left + 1.5 / 8 * (box.right - box.left)) / prepared.plan.width
        for own in view.plan:
            pixels = view.plan.cut(view.image, own)[None]
            image = torch.nn.functional.normalize(bench.model.encode_image(pixels))[0]
            height, width = view.plan.height, view.plan.width
            hat = 1 - abs(down - (own.top + own.bottom) / 2 / height) / ((own.bottom - own.top) / 2 / height)
            side = 1 - abs(across - (own.left + own.right) / 2 / width) / ((own.right - own.left) / 2 / width)
            near = (max(0, hat) * max(0, side)) ** 4
            total, weights = total + near * (segmenter.text_features @ image), weights + near
        means.append(total / weights)
    assert torch.allclose(found[:, 2, 8 + 1], sum(means) / 2, atol=1e-5)


# rows and tables


def test_changes_reach_the_part_they_belong_to():
    row = vary(pairs=("vv",), stride=8, templates="plain")
    assert (row.config.attention.pairs, row.config.stride, row.templates) == (("vv",), 8, "plain")
    assert row.config.attention.mid_layers == BASE.config.attention.mid_layers
    assert vary(row, pairs=("qq", "kk"), stride=32, templates="imagenet") == BASE
    with pytest.raises(TypeError, match="strides"):
        vary(strides=8)


def test_every_row_fits_the_model(folder):
    bench = Bench(folder, 1)
    for table in tables().values():
        assert set(table.beside) <= set(table.rows)
        assert bool(table.source) == bool(table.beside)
        assert len(set(table.rows.values())) == len(table.rows)
        for row in table.rows.values():
            assert (
                row.config.attention.strategy == "value" or row.config.attention.resolve_layers(6) is not None
            )
            assert get_templates(row.templates)
    assert bench.segmenter(preset("naclip"), "shape").class_names[1:] == CLASSES["shape"]


def fake(miou, seconds=0.0):
    return Figures(miou=miou, found=50.0, ground=60.0, seconds=seconds)


def test_gains_are_between_the_same_scenes():
    table = Table(
        title="t", rows={"a": BASE, "b": UNREFINED}, source="s", beside={"b": "7"}, kinds=("shape",)
    )
    values = {(BASE, 0): 10, (BASE, 1): 20, (UNREFINED, 0): 13, (UNREFINED, 1): 24}
    figures = {Job(row, "shape", "windows", seed): fake(value) for (row, seed), value in values.items()}
    assert set(jobs_of({"t": table}, (0, 1))) == set(figures)
    found = entry(table, figures, (0, 1))
    cell = found["cells"]["windows"]["shape"]["b"]
    assert (cell["miou"], cell["over_first"], cell["over_first_spread"]) == (18.5, 3.5, 0.71)
    assert cell["spread"] == pytest.approx(7.78)
    assert markdown(found, "windows").splitlines() == [
        "| row | elsewhere | shape | gain |",
        "| --- | --- | --- | --- |",
        "| a |  | 15.0 ± 7.1 |  |",
        "| b | 7 | 18.5 ± 7.8 | +3.5 ± 0.7 |",
    ]


# measuring


def test_figures_by_hand(bench, monkeypatch):
    sample = draw("whole", 0, 2)
    truth = sample.truth["shape"]
    ground = SimpleNamespace(labels=torch.zeros(64, 64, dtype=torch.int64))
    answers = [SimpleNamespace(labels=truth[0]), ground]
    names = ("background", *CLASSES["shape"])
    stub = SimpleNamespace(class_names=names, stream=lambda images: iter(answers))
    monkeypatch.setattr(bench, "segmenter", lambda row, kind: stub)
    figures = bench.score(BASE, "shape", sample)
    given = torch.stack([truth[0], torch.zeros_like(truth[0])])
    shares = [
        (((given == c) & (truth == c)).sum() / ((given == c) | (truth == c)).sum()).item()
        for c in range(9)
        if ((given == c) | (truth == c)).any()
    ]
    assert figures["miou"] == pytest.approx(100 * sum(shares) / len(shares), abs=1e-3)
    assert figures["ground"] == pytest.approx(100 * shares[0], abs=1e-3)
    assert figures["found"] == pytest.approx(
        (100 * (truth[0] > 0).sum() / (truth > 0).sum()).item(), abs=1e-3
    )


def test_a_cut_run_goes_on_where_it_stood(folder, tmp_path, monkeypatch):
    results = tmp_path / "deep" / "results.jsonl"
    jobs = [Job(preset(name), "shape", "whole", seed) for name in ("vanilla", "maskclip") for seed in (1, 2)]
    whole = Bench(folder, 2, results).measure(jobs)
    assert len(results.read_text().splitlines()) == 4
    text = results.read_text()
    results.write_text(text[: len(text) - 20])
    again = Bench(folder, 2, results)
    scored = []
    score = again.score
    monkeypatch.setattr(again, "score", lambda *job: scored.append(job) or score(*job))
    found = again.measure(jobs)
    assert len(scored) == 1
    for job in jobs:
        assert found[job]["miou"] == whole[job]["miou"]


def test_other_scenes_texts_or_models_are_other_figures(bench, folder):
    job = Job(BASE, "shape", "whole", 1)
    others = [
        replace(job, seed=2),
        replace(job, view="windows"),
        replace(job, kind="colour"),
        replace(job, row=replace(BASE, aux="English")),
        replace(job, row=replace(BASE, background=("tiles",))),
        replace(job, row=UNREFINED),
    ]
    keys = [bench._key(each) for each in (job, *others)]
    keys += [Bench(folder, 3)._key(job), Bench(folder, 2, split="val")._key(job)]
    assert len(set(keys)) == len(keys)


# search


class Landscape:
    """Best without the residual and with one map; no maps at all are worst, nothing else matters."""

    def measure(self, jobs, progress=None):
        return {job: fake(self.height(job.row.config.attention)) for job in jobs}

    @staticmethod
    def height(attention):
        return 10.0 - len(attention.pairs) - 3 * attention.residual - 5 * (attention.strategy == "value")


def test_climbing_ends_on_the_top():
    lines = []
    best, score = climb(
        Landscape(),
        UNREFINED,
        seeds=(1,),
        kinds=("shape",),
        views=("windows",),
        rounds=3,
        report=lines.append,
    )
    assert score == 9
    attention = best.config.attention
    assert (attention.residual, len(attention.pairs)) == (False, 1)
    # what is worth nothing stays as it was
    assert vary(best, residual=True, pairs=("qq", "kk")) == UNREFINED
    assert lines[0] == "round 1, size: 5.00  as before"
    assert "round 1, last block: 8.00  residual=False" in lines
    assert not any(line.startswith("round 3") for line in lines)


def test_choices_are_valid_and_differ():
    for values in CHOICES.values():
        rows = [vary(UNREFINED, **value) for value in values]
        assert len(set(rows)) == len(rows)


# commands


def test_the_gate_wants_twice_vanilla_and_thirty_on_colours():
    good = {"vanilla": 10.0, "itaclip": 15.0, "itaclip + prior": 20.0, "tiny-shapes": 30.0}

    def misses(requirements, **changed):
        figures = {kind: with_margins(good | changed.get(kind, {})) for kind in CLASSES}
        return [line.split(":")[0] for line in missed(requirements, [figures] * 3)]

    assert misses(REQUIREMENTS) == []
    assert misses(REQUIREMENTS, shape={"itaclip + prior": 19.9}) == ["shape.prior_over_twice at least 0"]
    assert misses(REQUIREMENTS, colour={"tiny-shapes": 29.9}) == ["colour.tiny-shapes at least 30"]
    assert misses(WITHOUT_PRIOR) == [f"{kind}.over_twice at least 0" for kind in CLASSES]


def test_a_random_model_fails_its_gate(folder, monkeypatch, recipes):
    monkeypatch.setattr(commands, "chosen", lambda: preset("maskclip"))
    # the name that every recipe's gate has
    result = recipes("segmentation", "judge", "--model", folder, "--scenes", 1)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert set(report["miou"]) == set(CLASSES)
    assert any(line.startswith("colour.tiny-shapes at least 30: ") for line in report["failures"])
    assert all(".over_twice at least 0: " in line for line in report["without_prior"])


def test_ablate_writes_card_and_figure_and_measures_once(folder, tmp_path, recipes):
    card, figure, results = tmp_path / "card.json", tmp_path / "deep" / "f.png", tmp_path / "r.jsonl"
    arguments = ["segmentation", "ablate", "--model", folder, "--scenes", 1, "--seeds", 2, "--card", card]
    arguments += ["--results", results, "--only", "ffn"]
    first = recipes(*arguments, "--figure", figure)
    assert first.exit_code == 0, first.stderr
    lines = results.read_text()
    report = json.loads(card.read_text())
    assert report["seeds"] == [5000, 5001]
    assert set(report["tables"]) == {"ffn"}
    cells = report["tables"]["ffn"]["cells"]["windows"]["shape"]
    assert cells["dropped"]["over_first"] == 0
    assert len(cells["kept"]["seeds"]) == 2
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "| kept | 66.3 |" in first.stdout
    again = recipes(*arguments)
    assert again.stdout == first.stdout
    assert results.read_text() == lines


def test_measuring_one_table_keeps_the_others_of_its_scenes(folder, tmp_path, recipes):
    card = tmp_path / "card.json"
    arguments = ["segmentation", "ablate", "--model", folder, "--seeds", 1, "--card", card]
    arguments += ["--results", tmp_path / "r.jsonl"]
    assert recipes(*arguments, "--scenes", 1, "--only", "ffn").exit_code == 0
    stored = json.loads(card.read_text())
    stored["tables"]["background"] = stored["tables"]["ffn"]
    card.write_text(json.dumps(stored))
    shown = recipes(*arguments, "--scenes", 1, "--only", "ffn")
    assert json.loads(card.read_text())["tables"] == stored["tables"]
    assert shown.stdout.count("## ") == 1
    # figures of other scenes do not belong beside them
    assert recipes(*arguments, "--scenes", 2, "--only", "ffn").exit_code == 0
    assert list(json.loads(card.read_text())["tables"]) == ["ffn"]


def test_unknown_tables_and_kinds_are_refused(folder, recipes):
    for arguments in (["ablate", "--only", "fnn"], ["search", "--kinds", "size"]):
        result = recipes("segmentation", *arguments, "--model", folder)
        assert result.exit_code == 2


def test_search_prints_a_configuration(folder, tmp_path, monkeypatch, recipes):
    monkeypatch.setattr(commands, "climb", lambda bench, start, **_: (start, 12.345))
    result = recipes("segmentation", "search", "--model", folder, "--results", tmp_path / "r.jsonl")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"miou": 12.35, "config": BARE.config.to_dict()}


def test_one_panel_can_be_drawn(tmp_path):
    cell = {"miou": 10.0, "spread": 1.0}
    draw_figure({"only": {"shape": {"a": cell, "b": cell}}}, tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000
