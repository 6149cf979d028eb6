# SPDX-License-Identifier: Apache-2.0
"""Trains tiny-clip: first the class token learns names by classification, then both towers learn sentences.

From scratch the contrastive loss alone finds colours and stays blind to shapes for very long; classification
leaves that plateau within minutes, and the contrastive loss keeps what it finds.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from common_kernels.runtime.cli import OutputPath
from common_kernels.runtime.files import write_json
from cyclopts import Parameter
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors.torch import load_file
from shapeworld import Scene, Split
from shapeworld.vocabulary import Attribute
from shapeworld.words import ATTRIBUTES
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes.options import Accelerator
from recipes.tiny_clip.network import (
    Heads,
    Size,
    classification_losses,
    contrastive_loss,
    pooled_token,
    targets,
    text_embedding,
    to_input,
)
from recipes.tiny_clip.scenes import (
    Facts,
    betrayed_by_colour,
    claimed,
    coloured,
    composite,
    loose_caption,
    pool_scene,
    shown,
    strict_caption,
    true_of,
)
from recipes.tiny_clip.tokens import encode
from recipes.tiny_clip.zero_shot import name_accuracies, single_things
from recipes.training import CHECKPOINT, Run, ScheduledModule, fit

STATE = "training.json"
COLOURLESS: tuple[Attribute, ...] = ("shape", "material")
# share of the captions in which words that carry no fact become unknown ones, or unknown ones come in: users
# wrap names into sentences that were never heard here
NOISY_SHARE = 0.3
_CARRIERS = frozenset(
    {"a", "an", "and", "is", "of", "on", "photo", "picture", "shows", "the", "there", "this"}
)
MAX_LOGIT_SCALE = 4.6052  # ln 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides what a run becomes.

    Attributes:
        pool_seed: Seed of the scenes in the pool.
        seed: Seed of the weights and of everything drawn in training.
        steps: Optimizer steps in all.
        warm_steps: Most steps of classification alone.
        known_shapes: Accuracy of shapes on held-out single things that ends this first phase early.
        examine_steps: Steps between validations, each with a checkpoint.
        batch_size: Images per step.
        grey_share: Share of the drawn images that lose their colours.
        photo_share: Share of the images that are composites of photographs, which only their colours are
            said of.
        optimizer: Name known to timm.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay of matrices.
        ramp_steps: Steps of rising learning rate at the start of each phase.
        decay_fraction: Share of the run with falling learning rate, at the end.
        classification: Weight of the classification losses beside the contrastive one, falls to 0 linearly.
        precision: Compute dtype of the matrix products.
        size: Size of the network.
    """

    pool_seed: int = 3
    seed: int = 0
    steps: int = 5000
    warm_steps: int = 2000
    known_shapes: float = 0.92
    examine_steps: int = 100
    batch_size: int = 128
    grey_share: float = 0.4
    photo_share: float = 0.0
    optimizer: str = "muon"
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    ramp_steps: int = 60
    decay_fraction: float = 0.5
    classification: float = 0.3
    precision: Literal["fp32", "bf16"] = "bf16"
    size: Size = field(default_factory=Size)

    def rate(self, step: int, phase_begin: int) -> float:
        """Return the learning rate of a step of the phase that began at a step."""
        since = step - phase_begin
        ramp = min(1.0, (since + 1) / self.ramp_steps)
        return self.learning_rate * ramp * min(1.0, (self.steps - step) / (self.decay_fraction * self.steps))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step is computed from.

    Attributes:
        images: ``(B, 3, 64, 64)``, half of them mirrored.
        scenes: Scenes that the images show.
        grey: ``(B,)``, images without colour.
        photos: Number of composites; they come last.
        rng: Stream that the captions are drawn from.
    """

    images: Tensor
    scenes: list[Scene]
    grey: NDArray[np.bool_]
    photos: int
    rng: np.random.Generator

    def sayable(self) -> Iterator[tuple[Scene, tuple[Attribute, ...]]]:
        """Return of each image what captions may speak of, and the attributes that they may name."""
        drawn = len(self.scenes) - self.photos
        for i, (scene, grey) in enumerate(zip(self.scenes, self.grey.tolist(), strict=True)):
            if i >= drawn:
                yield coloured(scene), ("colour",)
            else:
                yield scene, COLOURLESS if grey else ATTRIBUTES

    def to(self, device: torch.device, **kwargs: Any) -> Batch:
        """Return the same with its images on a device."""
        return replace(self, images=self.images.to(device, **kwargs))


@dataclass(frozen=True, slots=True)
class Examples:
    """Images of single things to validate on.

    Attributes:
        split: Split whose pairs the images show.
        images: ``(B, 3, 64, 64)``.
        facts: Facts that the images show.
    """

    split: Split
    images: Tensor
    facts: Facts

    @classmethod
    def render(cls, split: Split, count: int) -> Examples:
        """Return the first ``count`` of a split."""
        sample = single_things(1, count, split)
        return cls(split, to_input(sample.images), sample.facts)

    def to(self, device: torch.device, **kwargs: Any) -> Examples:
        """Return the same with its images on a device."""
        return replace(self, images=self.images.to(device, **kwargs))


class Batches:
    """The batches of a run; that of a step depends on the seed and the step only.

    Args:
        plan: Seeds, batch size and shares.
        pool: ``(count, 64, 64, 3)`` uint8, scenes of the plan's ``pool_seed``.
        photos: The same of composites; needed where the plan has a share of them.
    """

    def __init__(self, plan: Plan, pool: NDArray[np.uint8], photos: NDArray[np.uint8] | None = None) -> None:
        self.plan, self.pool = plan, pool
        self.photo_count = round(plan.photo_share * plan.batch_size)
        self.photos = pool[:0] if photos is None else photos
        scenes = (composite(plan.pool_seed, i) for i in range(len(self.photos) if self.photo_count else 0))
        self.composites = {i: scene for i, scene in enumerate(scenes) if coloured(scene).things}
        if len(self.composites) < self.photo_count:
            raise ValueError(f"photos must hold {self.photo_count} with a known colour at least")

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        rng = np.random.default_rng((self.plan.seed, step))
        drawn = self.plan.batch_size - self.photo_count
        index = np.sort(rng.choice(len(self.pool), drawn, replace=False))
        scenes, images = [pool_scene(self.plan.pool_seed, int(i)) for i in index], self.pool[index]
        if self.photo_count:
            others = np.sort(rng.choice(list(self.composites), self.photo_count, replace=False))
            scenes += [self.composites[int(i)] for i in others]
            images = np.concatenate([images, self.photos[others]])
        mirrored = rng.random(len(images)) < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
        grey = rng.random(len(images)) < self.plan.grey_share
        grey[drawn:] = False  # nothing would be left to say
        images[grey] = without_colour(images[grey], rng)
        return Batch(to_input(images), scenes, grey, self.photo_count, rng)


class CLIPModule(ScheduledModule):
    """Both towers, the heads of the classification, and the phase they are in.

    Args:
        plan: Plan of the run.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.contrast_from: int | None = None  # step at which the second phase began
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            self.model: CLIP = plan.size.build()
            self.heads = Heads(plan.size.width)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.plan.rate(step, self.contrast_from or 0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Muon on the matrices of the towers, AdamW on the rest."""
        groups = parameter_groups(self.model, self.heads, self.plan.weight_decay)
        return create_optimizer_v2(groups, opt=self.plan.optimizer, lr=self.plan.learning_rate)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss; each of its parts is logged beside its value at chance."""
        plan, facts = self.plan, shown(batch.scenes, batch.grey)
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=plan.precision == "bf16")
        # the text tower's attention too: the fused one has a slow backward in bf16 on CPUs
        with bf16, sdpa_kernel(SDPBackend.MATH):
            pooled = pooled_token(self.model, batch.images)
            losses = classification_losses(self.heads(pooled), facts)
            loss = torch.stack(list(losses.values())).mean()
            report = {f"loss_{name}": value.detach() for name, value in losses.items()}
            if self.contrast_from is not None:
                fade = (plan.steps - self.global_step) / (plan.steps - self.contrast_from)
                contrastive, more = self._contrast(pooled, batch, facts)
                loss = plan.classification * fade * loss + contrastive
                report |= more
        self.log("loss", loss, prog_bar=True)
        self.log_dict(report, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def _contrast(self, pooled: Tensor, batch: Batch, facts: Facts) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean of the contrastive losses over two captions of each image, and the report."""
        image = F.normalize(pooled @ self.model.visual.proj, dim=-1)
        parts: list[Tensor] = []
        report: dict[str, Tensor] = {}
        for kind in ("strict", "loose"):
            texts = [
                strict_caption(scene, batch.rng)
                if kind == "strict" and attributes == ATTRIBUTES  # it names them all
                else loose_caption(scene, batch.rng, attributes=attributes)
                for scene, attributes in batch.sayable()
            ]
            claims = claimed(texts)
            ignored = true_of(claims, facts) | betrayed_by_colour(claims, batch.grey)
            left_out = torch.from_numpy(ignored).to(self.device)
            tokens = encode([roughen(text.split(), batch.rng) for text in texts]).to(self.device)
            text = text_embedding(self.model, tokens)
            part, chance = contrastive_loss(image, text, self.model.logit_scale.exp(), left_out)
            parts.append(part)
            report |= {f"loss_{kind}": part.detach(), f"chance_{kind}": chance.detach()}
        return torch.stack(parts).mean(), report

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the norm of the gradients before it is clipped."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        self.log("grad_norm", norm, on_step=False, on_epoch=True, batch_size=1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Keep the temperature within bounds; before the checkpoint, which a hook after the batch is not."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def validation_step(self, batch: Examples, batch_idx: int) -> None:
        """Log accuracies on held-out single things, by the heads and by prompts."""
        pooled = torch.cat([pooled_token(self.model, part) for part in batch.images.split(128)])
        wanted = targets(batch.facts)
        found: dict[str, float] = {}
        for name, scores in self.heads(pooled).items():
            if name in ("shape", "colour", "material"):
                hits = scores.cpu().argmax(dim=-1) == wanted[name].argmax(dim=-1)
                found[f"head_{name}"] = hits.float().mean().item()
        if self.contrast_from is not None:
            image = F.normalize(pooled @ self.model.visual.proj, dim=-1)
            found |= name_accuracies(image, self.model.encode_text, encode_sentences, batch.facts)
        self.log_dict({f"{batch.split}_{name}": value for name, value in found.items()}, batch_size=1)

    def on_validation_epoch_end(self) -> None:
        """Begin the second phase once shapes are known, or at its time."""
        known = self.trainer.callback_metrics["val_head_shape"] >= self.plan.known_shapes
        if self.contrast_from is None and (known or self.global_step >= self.plan.warm_steps):
            self.contrast_from = self.global_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the plan, the phase and the latest figures."""
        figures = {name: round(float(value), 4) for name, value in self.trainer.callback_metrics.items()}
        checkpoint["plan"] = asdict(self.plan)
        checkpoint["contrast_from"], checkpoint["figures"] = self.contrast_from, figures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume the phase; only the number of steps may have changed.

        Raises:
            ValueError: If the rest of the plan has changed too.
        """
        begun, now = (plan | {"steps": 0} for plan in (checkpoint["plan"], asdict(self.plan)))
        if begun != now:
            raise ValueError(f"plan must be that of the checkpoint but for its steps, {begun}, got {now}")
        self.contrast_from = checkpoint["contrast_from"]


def without_colour(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return images ``(B, H, W, 3)`` as grey ones, each by its own random weights of the channels."""
    weights = rng.dirichlet(np.ones(3), len(images))  # (B, 3)
    grey = np.einsum("bhwc,bc->bhw", images, weights).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def parameter_groups(model: CLIP, heads: Heads, weight_decay: float) -> list[dict[str, Any]]:
    """Return the matrices between channels, and the rest, for which Muon falls back on AdamW."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = list(heads.parameters())
    for name, parameter in model.named_parameters():
        (rest if parameter.ndim < 2 or "embedding" in name else matrices).append(parameter)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0, "use_fallback": True},
    ]


def encode_sentences(texts: list[str]) -> Tensor:
    """Return the tokens of sentences, ``(B, CONTEXT_LENGTH)``."""
    return encode([text.split() for text in texts])


def roughen(words: list[str], rng: np.random.Generator) -> list[str]:
    """Put unknown words into some of the captions, in place of words without facts and before the others."""
    if rng.random() >= NOISY_SHARE:
        return words
    kept = ["?" if word in _CARRIERS and rng.random() < 0.4 else word for word in words]
    return ["?"] * int(rng.integers(4)) + kept


def train_clip(
    plan: Plan,
    batches: Batches,
    folder: Path,
    *,
    start: Path | None = None,
    stop_at: int | None = None,
    device: str = "cpu",
) -> CLIPModule:
    """Train to the end of the plan, or to ``stop_at``; resumes from the checkpoint in the folder.

    Args:
        plan: Plan of the run.
        batches: The batches of the plan.
        folder: Folder of checkpoint and logs.
        start: Folder of a trained model to start from, in open_clip's format, with the second phase.
        stop_at: Step to stop at before the end.
        device: Device, as torch names it.
    """
    module = CLIPModule(plan)
    if start is not None:
        module.model.load_state_dict(load_file(start / "open_clip_model.safetensors"))
        module.contrast_from = 0
    run = Run(steps=plan.steps, stop_at=stop_at, save_every=plan.examine_steps, log_every=20, device=device)
    examples = [Examples.render("val", 512), Examples.render("novel", 256)]
    fit(module, batches, folder, run, examples=examples)
    return module


def recipe_commit() -> str:
    """Return the commit of this checkout, or ``"unknown"``."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def train(
    *,
    pool: Path,
    output: OutputPath,
    photos: Path | None = None,
    init: Path | None = None,
    plan: Annotated[Plan, Parameter(name="*", group="Training")] = Plan(),
    machine: Accelerator = Accelerator(),
    stop_at: int | None = None,
) -> None:
    """Train tiny-clip; run again with the same folder and options to resume.

    Args:
        pool: Rendered scenes, from the command 'pool'.
        output: Folder of checkpoint and logs; resumed if it has one.
        photos: Rendered composites, from the command 'pool --world photo'.
        init: Folder of a trained model to start from, in open_clip's format.
        stop_at: Step to stop at, to resume later.
    """
    torch.set_num_threads(machine.threads)
    facts: dict[str, Any] = {
        "recipe_commits": [],
        "device": device_name(machine.device),
        "threads": machine.threads,
    }
    if (output / CHECKPOINT).exists():
        facts = json.loads((output / STATE).read_text())
    commits = list(
        dict.fromkeys([*facts["recipe_commits"], recipe_commit()])
    )  # a resumed run may have several
    write_json(output / STATE, facts | {"recipe_commits": commits, "plan": asdict(plan)})
    composites = None if photos is None else np.load(photos, mmap_mode="r")
    batches = Batches(plan, np.load(pool, mmap_mode="r"), composites)
    train_clip(plan, batches, output, start=init, stop_at=stop_at, device=machine.device)


def device_name(device: str) -> str:
    """Return what the device calls itself."""
    if device != "cpu":
        return torch.get_device_module(device).get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")
