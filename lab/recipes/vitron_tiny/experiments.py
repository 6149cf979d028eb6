# SPDX-License-Identifier: Apache-2.0
"""Does a discriminator on the shared signals help (paper, 4.3)? Four arms, several seeds.

For each seed a base of the nano size is trained on all tasks, or all arms start from one trained model, as
in the paper's third stage; seeds then differ in the order of the conversations and in the discriminator.
Every arm continues from the base over the same batches at a lower learning rate: without a discriminator
(``off``), with one that has no effect on the model (``placebo``), with its gradient reversed (``grl``),
towards its uniform guess (``confusion``). In the ``low`` setting base and arms see a tenth of the
conversations of tracking and editing; a trained model has seen them all. A second call skips everything
that is finished.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import torch
from common_kernels.runtime.files import write_bytes
from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number
from torch import Tensor
from vitron.data.example import Example
from vitron.model import ConversationEncoder, VitronConfig, VitronForConditionalGeneration
from vitron.model.batch import Batch, Encoded
from vitron.model.generation import hidden_of
from vitron.model.synergy import fresh_probe
from vitron.training import Stage
from vitron.training.module import MODULE_NAMES
from vitron.training.stages import Losses

from recipes.vitron_tiny.results import (
    ARMS,
    FIRST_WEIGHT,
    SETTINGS,
    TASK_MEASURES,
    WEIGHTED,
    Arm,
    Setting,
)
from recipes.vitron_tiny.scoring import cumulative_iou, mean_iou
from recipes.vitron_tiny.stages import stage_of
from recipes.vitron_tiny.tasks import draw_example
from recipes.vitron_tiny.training import prepare, train

SHARES: Mapping[str, float] = {
    "referring_segmentation": 0.28,
    "editing": 0.2,
    "tracking": 0.18,
    "caption": 0.12,
    "text_to_image": 0.06,
    "video_editing": 0.06,
    "image_to_video": 0.05,
    "restoration": 0.05,
}
"""Share of each task in a batch: all modules but one occur, and captions, which call none."""
LEARNING = ("language_model", "embeddings", "projector", "region_encoder", "signal_norm", "mask_head")
RATE = 1.5e-3  # peak of a base
SCARCE = ("tracking", "editing")  # of which the low setting has a tenth


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long the study takes.

    Attributes:
        base_steps: Number of steps of each base.
        arm_steps: Number of steps of each arm.
        batch_size: Number of conversations per step.
        pool_size: Number of conversations in the pool.
        tests: Number of conversations of each evaluated task.
        probe: Number of signals of each module that a fresh probe learns from; half as many evaluate it.
        weights: Largest weights of the discriminator's loss; ``off`` and ``placebo`` have none.
        ramp: Whether the weight grows from 0 along the run.
    """

    base_steps: PositiveInt = 1000
    arm_steps: PositiveInt = 300
    batch_size: PositiveInt = 32
    pool_size: PositiveInt = 12_000
    tests: PositiveInt = 200
    probe: Annotated[int, Parameter(validator=Number(gte=2))] = 80
    weights: tuple[float, ...] = (FIRST_WEIGHT,)
    ramp: bool = True

    def doses(self, arm: Arm) -> tuple[float, ...]:
        """Return the weights of an arm."""
        return self.weights if arm in WEIGHTED else (0.0,)


def write_pool(folder: Path, encoder: ConversationEncoder, plan: Plan, setting: Setting) -> None:
    """Draw the conversations of a setting; a pool that is there is left."""
    path = folder / "00.pkl"
    if path.exists():
        return
    found: list[Encoded] = []
    for task, share in SHARES.items():
        scarce = setting == "low" and task in SCARCE
        count = max(plan.batch_size, round(plan.pool_size * share * (0.1 if scarce else 1)))
        found += [encoder.encode(draw_example(task, 1, index)) for index in range(count)]
    write_bytes(path, pickle.dumps(found, protocol=5))


def stage_for(name: str, steps: int, lr: float, plan: Plan, **synergy: Any) -> Stage:
    """Return a stage of the study: without alignment, and with eyes that stay as the small CLIP left them.

    Neither has a part in the question, and eyes that do not learn spare half of the time.
    """
    stage = stage_of(name, steps, batch_size=plan.batch_size, lr=lr, **synergy)
    optimisation = stage.optimisation.model_copy(update={"groups": {}})
    return stage.model_copy(
        update={
            "train": LEARNING,
            "losses": Losses(text=1.0, mask=1.0),
            "optimisation": optimisation,
            "tasks": dict(SHARES),
            "tasks_later": {},
        }
    )


def run_seed(
    folder: Path,
    seed: int,
    plan: Plan,
    *,
    settings: Sequence[Setting] = SETTINGS,
    arms: Sequence[Arm] = ARMS,
    start: Path | None = None,
    threads: int = 1,
    device: str = "cpu",
    log: Callable[[str], None] | None = None,
) -> None:
    """Train and evaluate the missing arms of one seed; each result is a JSON file below ``results``.

    Args:
        folder: Folder of the study.
        seed: Of weights, order and discriminator.
        plan: How long.
        settings: Which.
        arms: Which.
        start: Trained model that all arms start from; by default a base is trained for each setting.
        threads: Number of CPU threads.
        device: Kind of accelerator.
        log: Called with a line for each result.
    """
    encoder = _prepare_encoder(folder, start)
    stage_trainer = _StageTrainer(folder, seed, threads, device)
    for setting in settings:
        pool = folder / f"pool-{setting}"
        write_pool(pool, encoder, plan, setting)
        base = f"{setting}-base-{seed}"
        for arm, weight in [(each, dose) for each in arms for dose in plan.doses(each)]:
            name = f"{setting}-{arm}-{weight:g}-{seed}" if weight else f"{setting}-{arm}-{seed}"
            path = folder / "results" / f"{name}.json"
            if path.exists():
                continue
            if start is None:
                stage_trainer.learn(pool, stage_for(base, plan.base_steps, RATE, plan))
            synergy = {"mode": arm, "weight": weight, "ramp": plan.ramp}
            stage = stage_for(name, plan.arm_steps, RATE / 3, plan, **synergy)
            model = stage_trainer.learn(pool, stage, start or folder / f"stage-{base}" / "model")
            found = {"setting": setting, "arm": arm, "weight": weight, "seed": seed}
            _write_result(path, found | {"figures": examine(model, encoder, plan)}, log)


def _prepare_encoder(folder: Path, start: Path | None) -> ConversationEncoder:
    """Return the encoder that a study shares: that of its start, or one for models of the nano size."""
    if start is None:
        prepare(folder, size="nano")
    elif not (folder / "config.json").exists():
        VitronConfig.from_pretrained(start).save_pretrained(folder)
        ConversationEncoder.from_pretrained(start).processor.save_pretrained(folder)
    return ConversationEncoder.from_pretrained(folder)


def run_pairs(
    folder: Path,
    seed: int,
    plan: Plan,
    *,
    tasks: Sequence[str] = tuple(TASK_MEASURES),
    start: Path | None = None,
    threads: int = 1,
    device: str = "cpu",
    log: Callable[[str], None] | None = None,
) -> None:
    """Train a base without each of some tasks, and one without none; each result is a file below ``pairs``.

    The share of the task goes to the others, so that all trainings see as many conversations. With a
    start, each  training has the steps of an arm.
    """
    encoder = _prepare_encoder(folder, start)
    stage_trainer = _StageTrainer(folder, seed, threads, device)
    pool = folder / "pool-full"
    write_pool(pool, encoder, plan, "full")
    for task in ("", *tasks):
        # without none it is the base of the arms, which may be there already
        whole = f"full-base-{seed}" if start is None else f"full-off-{seed}"
        name = f"without-{task}-{seed}" if task else whole
        path = folder / "pairs" / f"{name}.json"
        if path.exists():
            continue
        steps, rate = (plan.base_steps, RATE) if start is None else (plan.arm_steps, RATE / 3)
        stage = stage_for(name, steps, rate, plan)
        kept = {each: share for each, share in SHARES.items() if each != task}
        model = stage_trainer.learn(pool, stage.model_copy(update={"tasks": kept}), start)
        _write_result(path, {"without": task, "seed": seed, "figures": examine(model, encoder, plan)}, log)


@dataclass(frozen=True, slots=True)
class _StageTrainer:
    """Trains stages of one seed; stages that exist are read.

    Attributes:
        folder: Folder of the study.
        seed: Random seed of weights and order.
        threads: Number of CPU threads.
        device: Where it computes.
    """

    folder: Path
    seed: int
    threads: int
    device: str

    def learn(self, pool: Path, stage: Stage, init: Path | None = None) -> VitronForConditionalGeneration:
        done = self.folder / f"stage-{stage.name}"
        if (done / "training.json").exists():
            model = VitronForConditionalGeneration.from_pretrained(done / "model")
        else:
            model = train(
                self.folder,
                pool,
                stage,
                init=init,
                seed=self.seed,
                threads=self.threads,
                device=self.device,
                every=250,
            )
            (done / "last.ckpt").unlink(missing_ok=True)
        model.to(torch.device(self.device))  # pyright: ignore[reportArgumentType]
        return model


def _write_result(path: Path, found: dict[str, Any], log: Callable[[str], None] | None) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if log is not None:
        log(f"{path.stem}: " + ", ".join(f"{name} {value:.3f}" for name, value in found["figures"].items()))


# -- what an arm has learnt


@dataclass(frozen=True, slots=True, eq=False)
class TeacherForced:
    """A forward pass over a batch whose messages are the true ones.

    Attributes:
        batch: Batch of conversations.
        right: ``(B, L)`` boolean: whether the token has the highest score there.
        masks: Found masks ``(h, w)``, boolean, in the order of the targets of the batch.
        signals: Signals of each call, ``(K, num_signals, D)``.
    """

    batch: Batch
    right: Tensor
    masks: list[Tensor]
    signals: Tensor


@cache
def drawn(task: str, seed: int, count: int) -> tuple[Example, ...]:
    """Return the conversations that all arms are evaluated on."""
    return tuple(draw_example(task, seed, index, split="test") for index in range(count))


@torch.no_grad()
def teacher_force(
    model: VitronForConditionalGeneration, encoder: ConversationEncoder, examples: Sequence[Example]
) -> Iterator[TeacherForced]:
    """Run a model on conversations with their true messages, 16 at a time."""
    model.eval()
    for start in range(0, len(examples), 16):
        batch = encoder(examples[start : start + 16]).to(model.device)
        found = model(**batch.inputs(), use_cache=False)
        right = torch.zeros_like(batch.labels, dtype=torch.bool)
        right[:, 1:] = found.logits[:, :-1].argmax(-1) == batch.input_ids[:, 1:]
        signals, _ = model.signals(hidden_of(found), batch.input_ids)
        masks = [torch.empty(0)] * len(batch.mask_calls)
        if len(batch.mask_calls):
            assert found.features is not None
            modules = [batch.call_modules[call] for call in batch.mask_calls.tolist()]
            frames = batch.mask_frames.tolist()
            for group in model.mask_groups(signals[batch.mask_calls], modules, frames, found.features):
                for place, logits in zip(group.places, group.logits, strict=True):
                    masks[place] = (logits > 0).cpu()
        yield TeacherForced(batch, right, masks, signals)


def examine(
    model: VitronForConditionalGeneration, encoder: ConversationEncoder, plan: Plan
) -> dict[str, float]:
    """Return the measures of a model on scenes it never saw.

    A greedy message is the true one if and only if every token of the true one is the likeliest after those
    before it, so that exactness needs one forward pass and no generation. Module accuracy asks for the tokens
    of the module's name alone; masks are those of the true calls. Masks are compared at the mask head's size.
    """
    figures: dict[str, float] = {}
    modules: list[bool] = []
    instructions: list[bool] = []
    for task in SHARES:
        count = plan.tests if task in TASK_MEASURES else min(50, plan.tests)
        examples = drawn(task, 0, count)
        exact: list[bool] = []
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for seen in teacher_force(model, encoder, examples):
            exact += exact_rows(seen)
            modules += [] if task == "caption" else named_rows(seen, encoder)
            pairs += mask_pairs(seen)
        if task == "caption":
            figures["caption_exact"] = fmean(exact)
        else:
            instructions += exact
        if task == "referring_segmentation":
            figures["seg_ciou"] = cumulative_iou(pairs)
        elif task in ("tracking", "editing"):
            name = "tracking_miou" if task == "tracking" else "edit_iou"
            figures[name] = mean_iou(pairs)
    figures["module_accuracy"] = fmean(modules)
    figures["instruction_exact"] = fmean(instructions)
    return figures | probes(model, encoder, plan)


def exact_rows(seen: TeacherForced) -> list[bool]:
    """Whether a greedy message to each row is the true one to the last token."""
    learnt = seen.batch.labels >= 0
    return (seen.right | ~learnt).all(1).tolist()


def named_rows(seen: TeacherForced, encoder: ConversationEncoder) -> list[bool]:
    """Whether the module of each row is named right, given the words before it."""
    opens, closes = (encoder.token_id(tag) for tag in ("<module>", "</module>"))
    ids, learnt = seen.batch.input_ids, seen.batch.labels >= 0
    began = ((ids == opens) & learnt).long().cumsum(1)
    ended = ((ids == closes) & learnt).long().cumsum(1)
    # the opening tag itself, all up to the closing one, and that one too
    inside = learnt & (began > 0) & ((began > ended) | (ids == closes))
    return (seen.right | ~inside).all(1).tolist()


def mask_pairs(seen: TeacherForced) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return found and true masks of each call, ``(T, s, s)``."""
    pairs: dict[int, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    masks = zip(seen.batch.mask_calls.tolist(), seen.masks, seen.batch.mask_targets, strict=True)
    for call, found, truth in masks:
        own = pairs.setdefault(call, ([], []))
        own[0].append(found.numpy())
        own[1].append((truth > 0.5).cpu().numpy())
    return [(np.stack(found), np.stack(truth)) for found, truth in pairs.values()]


def probes(
    model: VitronForConditionalGeneration, encoder: ConversationEncoder, plan: Plan
) -> dict[str, float]:
    """Return how well fresh probes tell the module from frozen signals; chance is 1 over their number.

    As many signals of each module, so that there is no prior to win by; those that a probe learns from and
    those that judge it come from conversations that the model has not seen.
    """
    parts: dict[str, list[Tensor]] = {"train": [], "test": []}
    truth: dict[str, list[int]] = {"train": [], "test": []}
    tasks = [task for task in SHARES if task != "caption"]
    for part, seed, count in (("train", 2, plan.probe), ("test", 3, max(2, plan.probe // 2))):
        for task in tasks:
            for seen in teacher_force(model, encoder, drawn(task, seed, count)):
                parts[part].append(seen.signals.cpu())
                truth[part] += [MODULE_NAMES.index(module) for module in seen.batch.call_modules]
    signals = {part: torch.cat(each).float() for part, each in parts.items()}
    labels = {part: torch.tensor(each) for part, each in truth.items()}
    cut = int(model.config.num_specific)
    figures = {
        "probe_accuracy": fresh_probe(
            (signals["train"][:, cut:], labels["train"]),
            (signals["test"][:, cut:], labels["test"]),
            len(MODULE_NAMES),
        ),
        "probe_accuracy_specific": fresh_probe(
            (signals["train"][:, :cut], labels["train"]),
            (signals["test"][:, :cut], labels["test"]),
            len(MODULE_NAMES),
        ),
    }
    return figures | {"probe_chance": 1 / len(tasks)}
