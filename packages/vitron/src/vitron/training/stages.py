# SPDX-License-Identifier: Apache-2.0
"""Stages of training as data: trainable parameters, tasks, losses (paper, 4 and B.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from vitron.errors import explain
from vitron.model.synergy import SynergyMode
from vitron.training.roles import match_parameters

__all__ = [
    "Condition",
    "LoraSettings",
    "Losses",
    "Optimisation",
    "Stage",
    "Synergy",
    "list_stages",
    "load_stage",
]

Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Losses(_Model):
    """Weights of the losses; a loss of weight 0 is not computed.

    Attributes:
        text: Cross-entropy of assistant messages, calls and signal tokens.
        mask: Dice and cross-entropy of the mask head.
        match: Contrastive loss of the mask head's query against the objects of other calls; needs ``mask``.
        alignment: Distance of projected signals to the vectors of a text encoder.
        words: Loss of a linear layer, used in training alone, that reads the instruction tokens and the mask
            box of a call from its signals; masks of small models are learnt sooner with it.
    """

    text: Weight = 1.0
    mask: Weight = 0.0
    match: Weight = 0.0
    alignment: Weight = 0.0
    words: Weight = 0.0


class Synergy(_Model):
    """Discriminator of stage 3.

    Attributes:
        mode: ``off``; ``grl`` (reversed gradient); ``alternate`` (``steps`` of the discriminator, then one of
            the model against it); ``confusion`` (towards the uniform guess); ``placebo`` (trained without an
            effect on the model).
        weight: Largest weight of the loss of the model.
        ramp: Whether the weight grows from 0 along the run, instead of being ``weight`` from the first step.
        steps: Steps of the discriminator per step of the model, in ``alternate``.
        width: Channels of the discriminator.
        layers: Layers of the discriminator.
        heads: Attention heads of the discriminator.
        lr: Learning rate of the discriminator.
    """

    mode: SynergyMode = "off"
    weight: Weight = 0.1
    ramp: bool = True
    steps: Count = 1
    width: Count = 768
    layers: Count = 4
    heads: Count = 12
    lr: Positive = 1e-4


class LoraSettings(_Model):
    """Low-rank adapters of the language model, by PEFT.

    Attributes:
        rank: Rank of the adapters; 128 in the published script.
        alpha: Scale of the adapters.
        dropout: Dropout before the adapters.
        targets: Names of linear layers, or ``all-linear``.
    """

    rank: Count = 128
    alpha: Count = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    targets: str | tuple[str, ...] = "all-linear"


class Optimisation(_Model):
    """AdamW with warm-up and a cosine.

    Attributes:
        lr: Peak learning rate.
        groups: Peak learning rate of the parameters of a role, or of those whose names match a glob; the
            first that fits counts.
        weight_decay: Weight decay of matrices.
        warmup: Share of the steps with warm-up.
        steps: Number of steps.
        batch_size: Conversations per step and device.
        clip: Largest norm of the gradient.
        beta2: Second beta of AdamW.
    """

    lr: Positive = 1e-5
    groups: dict[str, Positive] = Field(default_factory=dict)
    weight_decay: Weight = 0.0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.03
    steps: Count = 1000
    batch_size: Count = 64
    clip: Positive = 1.0
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.95


class Condition(_Model):
    """Pipeline of diffusers whose text encoder the signals of a module learn to stand for.

    Attributes:
        pipeline: Folder or hub id.
    """

    pipeline: Annotated[str, Field(min_length=1)]


class Stage(_Model):
    """One stage of training.

    Attributes:
        name: Name, such as ``"1.2"``.
        summary: One line.
        train: Trainable parameters: roles (see :data:`vitron.training.roles.ROLES`) and globs of names; all
            others are frozen.
        lora: Adapters that are added to the language model, unless it has some.
        losses: Weights of the losses.
        synergy: Discriminator of stage 3.
        optimisation: Optimiser, schedule and batch size.
        tasks: Share of each task in every batch; empty takes the shares of the data.
        tasks_later: Shares at the last step, of tasks whose share changes linearly over the run.
        conditions: Pipeline by module; its embeddings of the calls' prompts are computed before the run, and
            stored with the data.
    """

    name: str
    summary: str = ""
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    lora: LoraSettings | None = None
    losses: Losses = Losses()
    synergy: Synergy = Synergy()
    optimisation: Optimisation = Optimisation()
    tasks: dict[str, Positive] = Field(default_factory=dict)
    tasks_later: dict[str, Positive] = Field(default_factory=dict)
    conditions: dict[str, Condition] = Field(default_factory=dict)

    def trainable(self, names: Iterable[str], roles: Mapping[str, frozenset[str]]) -> set[str]:
        """Return which of these parameters are trained.

        Args:
            names: Names of all parameters.
            roles: Parameters of each role; see :func:`vitron.training.roles.parameter_roles`.

        Raises:
            ValueError: If an entry of ``train`` fits none.
        """
        try:
            return set[str]().union(*match_parameters(self.train, names, roles).values())
        except ValueError as error:
            raise ValueError(f"stage {self.name}: {error}") from None


def list_stages() -> list[str]:
    """Return the names of the shipped stages."""
    folder = resources.files("vitron.training") / "stages"
    return sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml"))


def load_stage(name: str | Path) -> Stage:
    """Read a stage.

    Args:
        name: Name of a shipped stage, such as ``"1.2"``, or a YAML file.

    Raises:
        ValueError: If there is no such stage, or the file is not valid.
    """
    if str(name) in list_stages():
        text = (resources.files("vitron.training") / "stages" / f"{name}.yaml").read_text()
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise ValueError(f"there is no stage {name}: it is a YAML file or one of {', '.join(list_stages())}")
    try:
        return Stage.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"stage {name}: {explain(error)}") from error
