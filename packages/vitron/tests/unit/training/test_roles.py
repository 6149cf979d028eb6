# SPDX-License-Identifier: Apache-2.0
"""Parameters have one role each, whatever a family calls them, and adapters learn."""

import pytest
import torch
from vitron.model.assembly import attach_to
from vitron.training import TrainableSetCheck, VitronModule, list_stages, load_stage
from vitron.training.adapters import add_adapters, merge_adapters
from vitron.training.roles import ROLES, match_parameters, parameter_roles
from vitron.training.stages import LoraSettings

from ..model.backbones import FAMILIES, make_backbone  # noqa: TID252  # models of all families


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_every_family_has_a_role(family):
    model, _ = attach_to(*make_backbone(family))
    add_adapters(model, LoraSettings(rank=2, alpha=4), seed=0)
    roles, names = parameter_roles(model), [name for name, _ in model.named_parameters()]
    parts = ("vision_tower", "projector", "language_model", "region_encoder", "signal_norm", "mask_head")
    assert all(roles[part] for part in parts)
    assert set().union(*(roles[part] for part in (*parts, "condition_heads"))) == set(names)
    for number, part in enumerate(parts):
        assert not any(roles[part] & roles[other] for other in parts[number + 1 :]), part
    assert roles["lora"] < roles["language_model"]
    assert roles["embeddings"] < roles["language_model"]
    assert not any("lm_head" in name for name in roles["lora"])
    assert set(roles) == set(ROLES)
    for stage in map(load_stage, list_stages()):
        assert stage.trainable(names, roles)


def test_entries_are_roles_or_globs():
    names, roles = ["a.x", "a.y", "b"], {"first": frozenset({"a.x"}), "none": frozenset()}
    assert match_parameters(["first", "*.y"], names, roles) == {"first": {"a.x"}, "*.y": {"a.y"}}
    with pytest.raises(ValueError, match="'none' has no parameters"):
        match_parameters(["none"], names, roles)
    with pytest.raises(ValueError, match="'c' is neither a role nor"):
        match_parameters(["c"], names, roles)


def test_new_weights_depend_on_the_seed_alone():
    found = []
    for seed in (0, 0, 1):
        torch.rand(3)  # whatever was drawn before
        model, _ = attach_to(*make_backbone("llava"))
        state = torch.random.get_rng_state()
        module = VitronModule(model, load_stage("3"), seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        new = [
            each for name, each in module.named_parameters() if "lora_A" in name or "discriminator" in name
        ]
        found.append(torch.cat([each.detach().flatten() for each in new]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    merge_adapters(model)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_unused_parameters_are_reported_and_do_not_stop_a_run(caplog):
    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    class Holder:
        model, stage = Part(), load_stage("2")

    check = TrainableSetCheck(2)
    check.on_train_start(None, Holder)
    for step in range(2):
        Holder.model.used(torch.ones(1, 2)).sum().backward()
        check.on_train_batch_end(None, Holder, None, None, step)
    assert "2 trainable parameters were not used in 2 steps, such as unused.bias" in caplog.text
    Holder.model.zero_grad()
    check = TrainableSetCheck(1)
    check.on_train_start(None, Holder)
    Holder.model.used(torch.ones(1, 2)).detach()
    with pytest.raises(
        RuntimeError, match=r"2 trainable parameters had no gradient in 1 steps, such as used\.bias"
    ):
        check.on_train_batch_end(None, Holder, None, None, 0)
