# SPDX-License-Identifier: Apache-2.0
"""The model in Lightning: losses of a stage, its trainable set, its discriminator."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitron.model.encoding import IGNORED, Batch
from vitron.model.hf.modeling import VitronForConditionalGeneration, VitronOutput
from vitron.model.regions import mask_boxes
from vitron.model.signals import alignment_loss, mask_logits, mask_loss, match_loss
from vitron.model.synergy import Discriminator, confusion_loss, grl_weight, reverse_gradient
from vitron.protocol import MODULES
from vitron.training.schedule import cosine
from vitron.training.stages import Stage

__all__ = ["LastCheckpoint", "SignalReader", "TrainableSetCheck", "VitronModule"]

MODULE_NAMES = tuple(module.name for module in MODULES)


class VitronModule(pl.LightningModule):
    """One stage of training.

    Args:
        model: Model; parameters that the stage does not train are frozen.
        stage: Trainable parameters, losses and optimisation.

    Raises:
        ValueError: If a glob of the stage matches no parameter.
    """

    def __init__(self, model: VitronForConditionalGeneration, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        if stage.lora is not None:
            _add_lora(model, stage)
        self.model = model
        chosen = stage.trainable(name for name, _ in model.named_parameters())
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
        self.discriminator: Discriminator | None = None
        if stage.synergy.mode != "off":
            # its weights must not change the random state of the rest
            with torch.random.fork_rng(devices=[]):
                self.discriminator = Discriminator(
                    int(model.config.text.hidden_size),
                    len(MODULE_NAMES),
                    width=stage.synergy.width,
                    layers=stage.synergy.layers,
                    heads=stage.synergy.heads,
                )
        self.reader: SignalReader | None = None
        if stage.losses.words:
            with torch.random.fork_rng(devices=[]):
                config = model.config
                width = config.num_signals * int(config.text.hidden_size)
                self.reader = SignalReader(width, int(config.text.vocab_size))
        self.automatic_optimization = False
        self.resumed_at = 0

    # -- losses

    def losses(self, parts: Sequence[Batch]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of a step by name, and the signals of its calls ``(K, num_signals, D)``.

        Args:
            parts: Conversations of the step, similar lengths together; the losses are those of all at once.

        Raises:
            ValueError: If calls lack their signals.
        """
        weights = self.stage.losses
        terms: dict[str, list[tuple[Tensor, int]]] = {
            "text": [],
            "mask": [],
            "match": [],
            "alignment": [],
            "words": [],
        }
        signals = list[Tensor]()
        for batch in parts:
            found: VitronOutput = self.model(**batch.inputs(), labels=batch.labels, use_cache=False)
            if found.hidden is None or found.loss is None:
                raise RuntimeError("the model gave no hidden states or no loss")
            if weights.text:
                terms["text"].append((found.loss, int((batch.labels[:, 1:] != IGNORED).sum())))
            asked, rows = self.model.signals(found.hidden, batch.input_ids)
            if len(rows) != len(batch.call_modules):
                raise ValueError(
                    f"{len(batch.call_modules)} calls have {len(rows)} sets of signals between them"
                )
            if weights.mask and len(batch.mask_calls):
                query, fine = self._masks(batch, found, asked)
                loss = mask_loss(mask_logits(query, fine), batch.mask_targets)
                terms["mask"].append((loss, len(batch.mask_calls)))
                if weights.match:
                    loss = match_loss(query, fine, batch.mask_targets, batch.mask_calls)
                    terms["match"].append((loss, len(batch.mask_calls)))
            if weights.alignment and batch.conditions:
                terms["alignment"].append((self._alignment(batch, asked), len(batch.conditions)))
            if self.reader is not None and len(asked):
                terms["words"].append((self.reader.loss(asked, batch), len(asked)))
            signals.append(asked)
        losses = {
            name: torch.stack([loss * count for loss, count in each]).sum() / sum(count for _, count in each)
            for name, each in terms.items()
            if each
        }
        return losses, torch.cat(signals)

    def _masks(self, batch: Batch, found: VitronOutput, signals: Tensor) -> tuple[Tensor, Tensor]:
        if found.patches is None or batch.pixel_values is None:
            raise ValueError("a target mask needs an image")
        return self.model.mask_head.features(
            signals[batch.mask_calls],
            [batch.call_modules[call] for call in batch.mask_calls.tolist()],
            found.patches[batch.mask_frames],
            batch.pixel_values[batch.mask_frames],
        )

    def _alignment(self, batch: Batch, signals: Tensor) -> Tensor:
        heads = cast("dict[str, nn.Module]", self.model.condition_heads)
        terms = [
            alignment_loss(heads[batch.call_modules[call]](signals[call : call + 1])[0], wanted.to(signals))
            for call, wanted in batch.conditions.items()
        ]
        return torch.stack(terms).mean()

    def synergy(
        self, modules: Sequence[str], signals: Tensor, progress: float
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the loss of the model (or ``None``), the loss of the discriminator, and its accuracy."""
        discriminator, settings = self.discriminator, self.stage.synergy
        assert discriminator is not None
        truth = torch.tensor([MODULE_NAMES.index(each) for each in modules], device=signals.device)
        shared = signals[:, self.model.config.num_specific :]
        weight = grl_weight(progress, settings.weight)
        if settings.mode == "grl":
            logits = discriminator(reverse_gradient(shared, weight))
        else:
            logits = discriminator(shared.detach())
        own = F.cross_entropy(logits, truth)
        accuracy = (logits.argmax(-1) == truth).float().mean()
        model_loss = None
        if settings.mode in ("confusion", "alternate"):
            with _frozen(discriminator):
                guess = discriminator(shared)
            model_loss = (
                confusion_loss(guess) if settings.mode == "confusion" else -F.cross_entropy(guess, truth)
            )
            model_loss = weight * model_loss
        return model_loss, own, accuracy

    # -- steps

    def training_step(self, batch: Sequence[Batch], batch_idx: int) -> None:
        """Make one step of the model, and of the discriminator."""
        found: Any = self.optimizers(use_pl_optimizer=True)
        optimisers: list[Any] = found if isinstance(found, list) else [found]
        losses, signals = self.losses(batch)
        modules = [module for part in batch for module in part.call_modules]
        weights = self.stage.losses.model_dump()
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        logged = {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        for optimiser in optimisers:
            optimiser.zero_grad()
        if self.discriminator is not None and len(signals):
            progress = self.done / self.stage.optimisation.steps
            model_loss, own, accuracy = self.synergy(modules, signals, progress)
            total = total + own + (0 if model_loss is None else model_loss)
            logged |= {"synergy/loss": own.detach(), "synergy/accuracy": accuracy}
        self.manual_backward(total)
        own = () if self.reader is None else self.reader.parameters()
        learning = [each for each in (*self.model.parameters(), *own) if each.grad is not None]
        logged["gradient"] = nn.utils.clip_grad_norm_(learning, self.stage.optimisation.clip)
        for optimiser in optimisers:
            optimiser.step()
        if self.discriminator is not None and self.stage.synergy.mode == "alternate":
            self._more_of_the_discriminator(modules, signals.detach(), optimisers[1])
        self.scheduler.step()
        self.log_dict(logged, batch_size=sum(len(part.tasks) for part in batch))

    def _more_of_the_discriminator(self, modules: Sequence[str], signals: Tensor, optimiser: Any) -> None:
        for _ in range(self.stage.synergy.steps - 1):
            optimiser.zero_grad()
            _, own, _ = self.synergy(modules, signals, 0.0)
            self.manual_backward(own)
            optimiser.step()

    @property
    def scheduler(self) -> Any:
        """The schedule of the learning rate."""
        found = self.lr_schedulers()
        return found[0] if isinstance(found, list) else found

    @property
    def done(self) -> int:
        """Number of steps of the model so far."""
        return int(self.scheduler.last_epoch)

    def validation_step(self, batch: Sequence[Batch], batch_idx: int) -> None:
        """Log the losses of held-out conversations."""
        losses, _ = self.losses(batch)
        self.log_dict(
            {f"val/{name}": loss for name, loss in losses.items()},
            batch_size=sum(len(part.tasks) for part in batch),
            sync_dist=True,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the step at which the data resume."""
        checkpoint["resumed_at"] = self.done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the step."""
        self.resumed_at = int(checkpoint["resumed_at"])

    def configure_optimizers(self) -> Any:
        """Return AdamW of the model with its schedule, and AdamW of the discriminator."""
        settings = self.stage.optimisation
        groups = dict[tuple[float, bool], list[nn.Parameter]]()
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rate = next(
                    (lr for glob, lr in settings.groups.items() if fnmatchcase(name, glob)), settings.lr
                )
                groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
        if self.reader is not None:
            groups.setdefault((settings.lr, False), []).extend(self.reader.parameters())
        optimiser = torch.optim.AdamW(
            [
                {"params": params, "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0}
                for (rate, decays), params in groups.items()
            ],
            betas=(0.9, settings.beta2),
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, cosine(settings.steps, round(settings.warmup * settings.steps))
        )
        if self.discriminator is None:
            return [optimiser], [{"scheduler": schedule, "interval": "step"}]
        opponent = torch.optim.AdamW(self.discriminator.parameters(), lr=self.stage.synergy.lr)
        return [optimiser, opponent], [{"scheduler": schedule, "interval": "step"}]


class SignalReader(nn.Module):
    """Auxiliary head, used in training alone, that reads instruction tokens and boxes from signals.

    Args:
        width: Channels of all signals of a call together.
        vocabulary: Size of the vocabulary.
    """

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Linear(width, vocabulary)
        self.box = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 4))

    def loss(self, signals: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of instruction tokens plus the distance of mask boxes.

        Args:
            signals: ``(K, num_signals, D)``.
            batch: Batch with the instruction tokens of the calls, and the masks.
        """
        flat = signals.flatten(1)
        wanted = torch.zeros(len(flat), self.tokens.out_features, device=flat.device)
        for row, tokens in enumerate(batch.call_tokens):
            wanted[row, tokens] = 1
        loss = F.binary_cross_entropy_with_logits(self.tokens(flat), wanted, reduction="sum")
        loss = loss / wanted.sum().clamp(min=1)
        if len(batch.mask_calls):
            found = self.box(flat[batch.mask_calls])
            loss = loss + (found - mask_boxes(batch.mask_targets > 0.5)).abs().mean()
        return loss


class TrainableSetCheck(pl.Callback):
    """Reports the number of trainable parameters, and stops a run in which some get no gradient.

    The published script froze its own adapters after adding them; this check would have found it.

    Args:
        patience: Steps after which every declared parameter must have had a gradient.
    """

    def __init__(self, patience: int = 50) -> None:
        self.patience = patience
        self.waiting: set[str] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the trainable parameters."""
        model = cast(VitronModule, pl_module).model
        self.waiting = {name for name, each in model.named_parameters() if each.requires_grad}
        total = sum(each.numel() for each in model.parameters() if each.requires_grad)
        pl_module.print(f"stage {cast(VitronModule, pl_module).stage.name}: {total:,} trainable parameters")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remove parameters that had a gradient.

        Raises:
            RuntimeError: If some had none after ``patience`` steps.
        """
        if not self.waiting:
            return
        model = cast(VitronModule, pl_module).model
        had = {name for name, each in model.named_parameters() if each.grad is not None and each.grad.any()}
        self.waiting -= had
        if self.waiting and batch_idx + 1 >= self.patience:
            raise RuntimeError(
                f"{len(self.waiting)} trainable parameters had no gradient in {self.patience} steps, "
                f"such as {min(self.waiting)}: give data and losses that reach them, or freeze them"
            )


class LastCheckpoint(pl.Callback):
    """Keeps the latest checkpoint, written after the step that it holds.

    Lightning's own callback takes manual optimisation to be in the middle of a step.

    Args:
        path: File of the checkpoint.
        every: Steps between checkpoints; the last step has one as well.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint when it is due."""
        done = cast(VitronModule, pl_module).done
        if done % self.every and done != cast(VitronModule, pl_module).stage.optimisation.steps:
            return
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(self.path)


@contextmanager
def _frozen(module: nn.Module) -> Generator[None]:
    """Let gradients pass through a module, without gradients of its parameters."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)


def _add_lora(model: VitronForConditionalGeneration, stage: Stage) -> None:
    """Add adapters to the language model, in place."""
    from peft import LoraConfig, inject_adapter_in_model  # an optional dependency

    settings = stage.lora
    assert settings is not None
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    if targets == "all-linear":
        head = model.get_output_embeddings()
        targets = [
            name
            for name, each in model.language_model.named_modules()
            if isinstance(each, nn.Linear) and each is not head
        ]
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets
    )
    inject_adapter_in_model(config, model.language_model)
