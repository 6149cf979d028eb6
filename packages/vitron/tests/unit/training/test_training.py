# SPDX-License-Identifier: Apache-2.0
"""Stages teach what they declare, and nothing else (checks 13, 14, 17, 35)."""

from itertools import product

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from vitron.model.engine import Vitron
from vitron.training import (
    MixedTasks,
    Stage,
    TrainableSetCheck,
    VitronData,
    VitronModule,
    list_stages,
    load_stage,
)
from vitron.training.adapters import merge_adapters
from vitron.training.callbacks import LastCheckpoint
from vitron.training.roles import parameter_roles
from vitron.training.stages import LoraSettings, Losses, Optimisation, Synergy

from ..model.conftest import (  # noqa: TID252  # builders that both folders use
    ask,
    make_config,
    make_encoder,
    make_image,
    make_model,
    make_processor,
    make_video,
    segment,
    square,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
]

WORDS = ("the red circle", "a blue star", "a green ring", "the heart")


def conversations(count=8):
    made = []
    for number in range(count):
        mask = square(4 * (number % 4), 3 * (number % 5), 10)
        text = WORDS[number % 4]
        if number % 4 == 3:
            made.append(ask(make_image(number), text=f"what is {number}", reply=(text, ()), task="question"))
        else:
            made.append(
                ask(
                    make_image(number),
                    text=f"segment {text} {number}",
                    regions=(mask,) if number % 2 else (),
                    reply=("Here it is.", (segment(text),)),
                    masks={0: mask[None]},
                    task="segmentation",
                )
            )
    return made


def run(stage, folder, *, examples=None, model=None, callbacks=(), resume=None, parts=2, kind=VitronModule):
    processor = make_processor()
    config = make_config(processor)
    model = model or make_model(config)
    encoder = make_encoder(processor, config)
    settings = stage.optimisation
    data = VitronData(
        encoder,
        examples or conversations(),
        batch_size=settings.batch_size,
        steps=settings.steps,
        parts=parts,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        default_root_dir=folder,
    )
    module = kind(model.train(), stage)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=False)
    return module, trainer


def small(**changes):
    stage = {
        "name": "test",
        "train": ("*",),
        "losses": Losses(text=1, mask=1),
        "optimisation": Optimisation(lr=2e-3, steps=4, batch_size=4),
    }
    return Stage(**(stage | changes))


class Gradients(pl.Callback):
    """Notes which parameters have a gradient that is not zero, and whether dropout is on."""

    def __init__(self):
        self.found, self.dropout = set(), set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for name, each in pl_module.named_parameters():
            if each.grad is not None and each.grad.any():
                self.found.add(name)
        for name, each in pl_module.model.named_modules():
            if "lora_dropout" in name and isinstance(each, torch.nn.Dropout):
                self.dropout.add((each.p, each.training))


@pytest.mark.parametrize("name", list_stages())
def test_each_stage_teaches_what_it_declares(name, tmp_path):
    """Ten steps with its own dropout: gradients are those of what it declares, the rest keeps its bits."""
    stage = load_stage(name)
    tiny = {"optimisation": Optimisation(lr=1e-3, steps=10, batch_size=8)}
    if stage.lora:
        tiny["lora"] = stage.lora.model_copy(update={"rank": 4, "alpha": 8})
    if stage.synergy.mode != "off":
        tiny["synergy"] = stage.synergy.model_copy(update={"width": 16, "layers": 1, "heads": 2})
    stage = stage.model_copy(update=tiny | {"tasks": {}})
    model = make_model(make_config(make_processor(), mask_modules=("image_segmentation",)))
    before = {key: each.clone() for key, each in (*model.named_parameters(), *model.named_buffers())}
    gradients = Gradients()
    module, _ = run(
        stage,
        tmp_path,
        examples=[*conversations(), drawing()],
        model=model,
        callbacks=[TrainableSetCheck(10), gradients],
    )
    names = [key for key, _ in model.named_parameters()]
    declared = stage.trainable(names, parameter_roles(model))
    assert declared == {key for key, each in model.named_parameters() if each.requires_grad}
    opponent = {key for key, _ in module.named_parameters() if key.startswith("discriminator.")}
    assert gradients.found == {f"model.{key}" for key in declared} | opponent
    assert bool(opponent) == (name == "3")
    adapters = {key for key in names if ".lora_" in key}
    assert adapters <= declared
    assert bool(adapters) == (name in ("1.2", "2", "3"))
    assert gradients.dropout == ({(stage.lora.dropout, True)} if stage.lora else set())
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())  # a tied one once
    for key, each in tensors.items():
        if key in adapters:
            assert each.any(), key  # those of B were zero
        else:
            same = torch.equal(each, before[key.replace(".base_layer", "")])
            assert same == (key not in declared), key


def drawing():
    """A conversation with a call of a generator, whose condition is all ones."""
    made = ask(text="draw a ring", reply=("ok", ()), task="make")
    call = segment("a ring").model_copy(update={"module": "text_to_image"})
    call = call.model_copy(
        update={"instruction": (call.instruction[0].model_copy(update={"verb": "generate"}),)}
    )
    return type(made)(
        task="make",
        messages=(made.messages[0], made.messages[1].model_copy(update={"calls": (call,)})),
        conditions={0: np.ones((3, 8), np.float32)},
    )


def test_adapters_begin_by_changing_nothing(tmp_path):
    model = make_model(make_config(make_processor()))
    batch = make_encoder(make_processor(), model.config)(conversations())
    with torch.no_grad():
        before = model(**batch.inputs()).logits
        module = VitronModule(model, load_stage("1.2"))
        assert torch.equal(module.model.eval()(**batch.inputs()).logits, before)


def test_a_glob_that_fits_nothing_is_a_slip(tmp_path):
    model = make_model(make_config(make_processor()))
    with pytest.raises(ValueError, match="is neither a role nor the name"):
        VitronModule(model, small(train=("projectr.*",)))


def test_parameters_that_no_loss_reaches_stop_the_run(tmp_path):
    with pytest.raises(RuntimeError, match="had no gradient in 2 steps"):
        run(small(losses=Losses(text=1)), tmp_path, callbacks=[TrainableSetCheck(2)])


@pytest.mark.parametrize("mode", ["grl", "alternate", "confusion"])
def test_a_discriminator_without_weight_changes_nothing(mode, tmp_path):
    plain, _ = run(small(), tmp_path)
    synergy = Synergy(mode=mode, weight=0.0, width=16, layers=1, heads=2)
    placebo, _ = run(small(synergy=synergy), tmp_path)
    for (name, one), (_, other) in zip(
        plain.model.named_parameters(), placebo.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("mode", ["grl", "alternate", "confusion"])
def test_a_discriminator_with_weight_is_felt(mode, tmp_path):
    plain, _ = run(small(), tmp_path)
    synergy = Synergy(mode=mode, weight=1.0, steps=2, width=16, layers=1, heads=2)
    felt, _ = run(small(synergy=synergy), tmp_path)
    key = "backbone.model.language_model.layers.1.mlp.down_proj.weight"
    assert not torch.equal(plain.model.state_dict()[key], felt.model.state_dict()[key])


def test_without_a_ramp_the_first_step_has_the_whole_weight(tmp_path):
    """The weight of a ramp is 0 at the first step."""
    tiny = {"mode": "grl", "weight": 1.0, "width": 16, "layers": 1, "heads": 2}
    one_step = Optimisation(lr=2e-3, steps=1, batch_size=4, warmup=0.0)
    plain, ramped, full = (
        run(small(optimisation=one_step, synergy=Synergy(**each)), tmp_path)[0].model.state_dict()
        for each in ({"mode": "off"}, tiny, tiny | {"ramp": False})
    )
    key = "backbone.model.language_model.layers.1.mlp.down_proj.weight"
    assert torch.equal(plain[key], ramped[key])
    assert not torch.equal(plain[key], full[key])


def test_parts_of_like_length_teach_the_same():
    processor = make_processor()
    model = make_model(make_config(processor))
    encoder = make_encoder(processor, model.config)
    examples = [*conversations(6), ask(make_video(3), text="a long question about it all", reply=("ok", ()))]
    found = []
    for parts in (1, 3):
        data = VitronData(encoder, examples, batch_size=7, steps=1, parts=parts)
        losses, signals = VitronModule(model, small()).losses(data._join(list(examples)))
        found.append((losses, len(signals)))
    assert found[0][1] == found[1][1] == 5
    for name, loss in found[0][0].items():
        torch.testing.assert_close(loss, found[1][0][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_further_losses_teach_and_are_logged(tmp_path, parts):
    class Shrinking(VitronModule):
        weight = 0.0

        def further_losses(self, batch):
            norm = self.model.get_input_embeddings().weight.square().mean()
            return {"size": self.weight * norm}

    found = {}
    for weight in (0.0, 1e4):
        module, trainer = run(
            small(),
            tmp_path,
            parts=parts,
            kind=type("Weighted", (Shrinking,), {"weight": weight}),
        )
        found[weight] = module.model.get_input_embeddings().weight.square().mean()
        assert bool(trainer.callback_metrics["loss/size"] > 0) is bool(weight)
    assert found[1e4] < found[0.0]


def test_a_run_that_was_cut_resumes_as_if_it_had_not_been(tmp_path):
    stage = small(optimisation=Optimisation(lr=2e-3, steps=6, batch_size=4))
    whole, _ = run(stage, tmp_path)

    class Cut(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 4:
                raise KeyboardInterrupt

    last = tmp_path / "last.ckpt"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(stage, tmp_path, callbacks=[LastCheckpoint(last, 3), Cut()])
    again, _ = run(stage, tmp_path, resume=last)
    assert again.done == 6
    for (name, one), (_, other) in zip(
        whole.model.named_parameters(), again.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_batches_hold_tasks_by_their_shares():
    tasks = ["a"] * 90 + ["b"] * 10
    mix = MixedTasks(tasks, batch_size=8, steps=5, shares={"a": 1, "b": 1}, seed=3)
    batches = list(mix)
    assert len(batches) == len(mix) == 5
    for batch in batches:
        assert sum(tasks[each] == "b" for each in batch) == 4
    assert batches == list(mix)
    assert batches[2:] == mix[2:]
    other = MixedTasks(tasks, batch_size=8, steps=5, shares={"a": 1, "b": 1}, seed=3, rank=1, world_size=2)
    assert batches != list(other)
    with pytest.raises(ValueError, match="no conversation of task c"):
        MixedTasks(tasks, batch_size=8, steps=5, shares={"c": 1})


def test_shares_move_evenly_to_those_of_the_end():
    tasks = ["a"] * 10 + ["b"] * 10
    mix = MixedTasks(tasks, batch_size=8, steps=4, shares={"a": 1, "b": 1}, later={"b": 7})
    counts = [sum(tasks[each] == "b" for each in batch) for batch in mix]
    # a half at first, seven eighths at the end: 4, 4.75, 5.5, 6.25 of 8
    assert [count - whole for count, whole in zip(counts, (4, 4, 5, 6), strict=True)] in [
        [0, *rest] for rest in product((0, 1), repeat=3)
    ]
    with pytest.raises(ValueError, match="tasks_later names c"):
        MixedTasks(tasks, batch_size=8, steps=4, shares={"a": 1, "b": 1}, later={"c": 1})


@pytest.mark.parametrize(
    "text",
    ["name: x", "train: ['*']", "name: x\ntrain: []", "- 1", "name: [", "name: x\ntrain: ['*']\nlosss: {}"],
)
def test_stages_that_cannot_be_understood_are_refused(text, tmp_path):
    path = tmp_path / "stage.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="stage"):
        load_stage(path)
    with pytest.raises(ValueError, match="there is no stage"):
        load_stage("no-such-stage")


def test_sixteen_conversations_are_learnt_by_heart(tmp_path):
    stage = small(optimisation=Optimisation(lr=5e-3, steps=220, batch_size=16, warmup=0.1))
    examples = conversations(16)
    module, _ = run(stage, tmp_path, examples=examples, parts=1)  # in one pass, of which there are many
    processor = make_processor()
    vitron = Vitron(module.model, make_encoder(processor, module.model.config).processor)
    replies = vitron.generate_batch(examples, max_new_tokens=80)
    assert replies == [vitron.encoder.assistant_text(each.messages[-1]) for each in examples]
    for example, signals in zip(examples, vitron.signals_of(examples), strict=True):
        for signal, truth in zip(signals, example.masks.values(), strict=True):
            found = vitron.mask(signal, "image_segmentation", example.media[0])
            assert (found & truth).sum() / (found | truth).sum() > 0.9


def test_merged_adapters_say_what_they_said(tmp_path):
    stage = small(train=("*lora_*",), losses=Losses(text=1), lora=LoraSettings(rank=4, alpha=8, dropout=0.0))
    module, _ = run(stage, tmp_path)
    batch = make_encoder(make_processor(), module.model.config)(conversations())
    with torch.no_grad():
        before = module.model.eval()(**batch.inputs()).logits
        merge_adapters(module.model)
        after = module.model(**batch.inputs()).logits
    assert not any("lora" in name for name, _ in module.model.named_parameters())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
