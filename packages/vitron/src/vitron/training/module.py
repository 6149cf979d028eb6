# SPDX-License-Identifier: Apache-2.0
"""The model in Lightning: steps of a stage, its trainable set, its discriminator."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from vitron.model.batch import Batch
from vitron.model.engine import Vitron
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.modeling import VitronForConditionalGeneration
from vitron.model.synergy import Discriminator, confusion_loss, grl_weight, reverse_gradient
from vitron.protocol import MODULES
from vitron.training.adapters import add_adapters
from vitron.training.losses import BatchLosses, SignalReader, batch_losses, loss_counts
from vitron.training.randomness import seeded
from vitron.training.roles import match_parameters, parameter_roles
from vitron.training.schedule import cosine
from vitron.training.stages import Losses, Stage, load_stage

__all__ = ["MODULE_NAMES", "VitronModule"]

MODULE_NAMES = tuple(module.name for module in MODULES)
_NEW, _DROPOUT = 2, 3  # what a seed is for: those of one kind never meet those of another
_LOSSES = tuple(Losses.model_fields)


class VitronModule(pl.LightningModule):
    """One stage of training.

    New weights and dropout depend on ``seed`` and the step alone: a resumed run makes the steps of an
    uninterrupted one. ``load_from_checkpoint`` needs the path alone. All arguments can be plain values, as
    LightningCLI reads them.

    Args:
        model: Model; parameters that the stage does not train are frozen. Or the name of one, as
            :meth:`vitron.Vitron.from_pretrained` takes it, or the configuration of a new one.
        stage: Trainable parameters, losses and optimisation; or its name or YAML file, or what its
            ``model_dump`` returns.
        seed: Random seed of adapters, discriminator and dropout.
        optimizer: Function from groups of parameters, with their learning rates and weight decays, to the
            optimiser of the model; AdamW if ``None``.
        scheduler: Function from the optimiser to a scheduler that is stepped once a step; warm-up and a
            cosine if ``None``.

    Attributes:
        processor: Processor of a model that was given by its name.

    Raises:
        ValueError: If an entry of the stage's ``train`` matches no parameter.
    """

    def __init__(
        self,
        model: VitronForConditionalGeneration | Mapping[str, Any] | str,
        stage: Stage | Mapping[str, Any] | str,
        seed: int = 0,
        *,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.processor: Any = None
        if isinstance(model, str):
            found = Vitron.from_pretrained(model, device="cpu", dtype="float32")
            model, self.processor = found.model.train(), found.processor
        elif isinstance(model, Mapping):
            model = VitronForConditionalGeneration(VitronConfig.from_dict(dict(model)))
        if isinstance(stage, str):
            stage = load_stage(stage)
        elif isinstance(stage, Mapping):
            stage = Stage.model_validate(stage)
        self.stage, self.seed = stage, seed
        self.optimizer, self.scheduler_of = optimizer, scheduler
        self.save_hyperparameters(
            {"model": model.config.to_dict(), "stage": stage.model_dump(mode="json"), "seed": seed},
            logger=False,
        )
        if stage.lora is not None:
            add_adapters(model, stage.lora, seed)
        self.model = model
        names = [name for name, _ in model.named_parameters()]
        chosen = stage.trainable(names, parameter_roles(model))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
        self.discriminator: Discriminator | None = None
        self.reader: SignalReader | None = None
        with seeded(seed, _NEW):
            hidden = int(model.config.text.hidden_size)
            if stage.synergy.mode != "off":
                self.discriminator = Discriminator(
                    hidden,
                    len(MODULE_NAMES),
                    width=stage.synergy.width,
                    layers=stage.synergy.layers,
                    heads=stage.synergy.heads,
                )
            if stage.losses.words:
                self.reader = SignalReader(
                    model.config.num_signals * hidden, int(model.config.text.vocab_size)
                )
        self.automatic_optimization = False
        self.resumed_at = 0
        self._sums: Tensor | None = None

    # -- losses

    def losses(self, parts: Sequence[Batch]) -> BatchLosses:
        """Return the losses of a step.

        Args:
            parts: Conversations of the step, similar lengths together; the losses are those of all at once.

        Raises:
            ValueError: If calls lack their signals.
        """
        counts = [loss_counts(batch, self.stage.losses, self.model) for batch in parts]
        found = [
            batch_losses(self.model, batch, count, self.reader)
            for batch, count in zip(parts, counts, strict=True)
        ]
        shares = _shares(counts)
        losses = {
            name: torch.stack(
                [
                    each.losses[name] * share[name]
                    for each, share in zip(found, shares, strict=True)
                    if name in share
                ]
            ).sum()
            for name in dict.fromkeys(name for count in counts for name in count)
        }
        return BatchLosses(losses, torch.cat([each.signals for each in found]))

    def synergy(
        self, modules: Sequence[str], signals: Tensor, progress: float
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the loss of the model (or ``None``), the loss of the discriminator, and its accuracy."""
        discriminator, settings = self.discriminator, self.stage.synergy
        assert discriminator is not None
        truth = torch.tensor([MODULE_NAMES.index(each) for each in modules], device=signals.device)
        shared = signals[:, self.model.config.num_specific :]
        weight = grl_weight(progress, settings.weight) if settings.ramp else settings.weight
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
        with seeded(self.seed, _DROPOUT, self.done, self.global_rank, device=self.device):
            self._step(batch)

    def _step(self, parts: Sequence[Batch]) -> None:
        found: Any = self.optimizers(use_pl_optimizer=True)
        optimisers: list[Any] = found if isinstance(found, list) else [found]
        for optimiser in optimisers:
            optimiser.zero_grad()
        counts = [loss_counts(batch, self.stage.losses, self.model) for batch in parts]
        logged, signals = dict[str, Tensor](), list[Tensor]()
        calls = sum(len(batch.call_modules) for batch in parts)
        size = sum(len(batch.tasks) for batch in parts)
        for number, (batch, count, share) in enumerate(zip(parts, counts, _shares(counts), strict=True)):
            # gradients are summed over the parts, and exchanged between processes with the last one
            with nullcontext() if number == len(parts) - 1 else self._alone():
                losses, asked = batch_losses(self.model, batch, count, self.reader)
                weighted = {f"loss/{name}": loss * share[name] for name, loss in losses.items()}
                total = self._total(weighted)
                for name, loss in self.further_losses(batch).items():
                    part = len(batch.tasks) / size
                    total = total + loss * part
                    weighted[f"loss/{name}"] = loss * part
                if self.discriminator is not None and len(asked):
                    part = len(asked) / calls
                    loss, extra = self._synergy_loss(batch.call_modules, asked)
                    total = total + loss * part
                    weighted |= {name: value * part for name, value in extra.items()}
                total = self._reaching_all(total)
                if total.requires_grad:  # a stage may train heads alone, which these conversations do not use
                    self.manual_backward(total)
            for name, value in weighted.items():
                logged[name] = logged[name] + value.detach() if name in logged else value.detach()
            signals.append(asked.detach())
        own = () if self.reader is None else self.reader.parameters()
        learning = [each for each in (*self.model.parameters(), *own) if each.grad is not None]
        logged["gradient"] = nn.utils.clip_grad_norm_(learning, self.stage.optimisation.clip)
        for optimiser in optimisers:
            optimiser.step()
        if self.discriminator is not None and self.stage.synergy.mode == "alternate":
            modules = [module for part in parts for module in part.call_modules]
            self._more_of_the_discriminator(modules, torch.cat(signals), optimisers[1])
        self.scheduler.step()
        self.log_dict({"lr": optimisers[0].param_groups[0]["lr"]}, batch_size=size)
        self.log_dict(logged, batch_size=size, prog_bar=True)

    def further_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return losses of your own for conversations that the model has just read, weighted, by name.

        For subclasses. The conversations of a step may come in several batches, each of which counts by
        their number.
        """
        return {}

    def _total(self, losses: Mapping[str, Tensor]) -> Tensor:
        weights = self.stage.losses
        terms = [getattr(weights, name.partition("/")[2]) * loss for name, loss in losses.items()]
        # without a loss the gradient is zero
        return torch.stack(terms).sum() if terms else torch.zeros((), device=self.device, requires_grad=True)

    def _synergy_loss(self, modules: Sequence[str], signals: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        progress = self.done / self.stage.optimisation.steps
        model_loss, own, accuracy = self.synergy(modules, signals, progress)
        total = own if model_loss is None else own + model_loss
        return total, {"synergy/loss": own.detach(), "synergy/accuracy": accuracy}

    def _alone(self) -> Any:
        """Return a context in which gradients are not exchanged between processes."""
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        return nullcontext() if block is None else block()

    def _reaching_all(self, total: Tensor) -> Tensor:
        """Return the loss, connected to every trainable parameter if there are several processes.

        Otherwise a process whose conversations have, say, no masks would keep the others waiting.
        """
        if self.trainer.world_size == 1:
            return total
        return _Reach.apply(total, *(each for each in self.parameters() if each.requires_grad))  # pyright: ignore[reportReturnType]  # one tensor

    def _more_of_the_discriminator(self, modules: Sequence[str], signals: Tensor, optimiser: Any) -> None:
        assert self.discriminator is not None
        mine = list(self.discriminator.parameters())
        for _ in range(self.stage.synergy.steps - 1):
            optimiser.zero_grad()
            with self._alone():
                if len(signals):
                    self.manual_backward(self.synergy(modules, signals, 0.0)[1])
            for each in mine if self.trainer.world_size > 1 else ():
                grad = torch.zeros_like(each) if each.grad is None else each.grad
                each.grad = self.trainer.strategy.reduce(grad, reduce_op="mean")  # pyright: ignore[reportAttributeAccessIssue]  # a tensor
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

    def on_validation_epoch_start(self) -> None:
        """Begin the sums of the losses."""
        self._sums = torch.zeros(len(_LOSSES), 2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Sequence[Batch], batch_idx: int) -> None:
        """Add the losses of held-out conversations."""
        assert self._sums is not None
        for part in batch:
            counts = loss_counts(part, self.stage.losses, self.model)
            for name, loss in batch_losses(self.model, part, counts, self.reader).losses.items():
                self._sums[_LOSSES.index(name)] += (
                    torch.stack([loss.double(), loss.new_ones(()).double()]) * (counts[name])
                )

    def on_validation_epoch_end(self) -> None:
        """Log the mean of each loss over all items, of all processes."""
        assert self._sums is not None
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        means = {
            f"val/{name}": (total / count).float()
            for name, (total, count) in zip(_LOSSES, sums, strict=True)
            if count
        }
        self.log_dict(means, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the step at which the data resume."""
        checkpoint["resumed_at"] = self.done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the step."""
        self.resumed_at = int(checkpoint["resumed_at"])

    def configure_optimizers(self) -> Any:
        """Return the optimiser of the model with its schedule, and AdamW of the discriminator."""
        settings = self.stage.optimisation
        names = [name for name, _ in self.model.named_parameters()]
        rates = dict[str, float]()
        for entry, found in match_parameters(settings.groups, names, parameter_roles(self.model)).items():
            rates = dict.fromkeys(found, settings.groups[entry]) | rates
        groups = dict[tuple[float, bool], list[nn.Parameter]]()
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rate = rates.get(name, settings.lr)
                groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
        if self.reader is not None:
            groups.setdefault((settings.lr, False), []).extend(self.reader.parameters())
        make = self.optimizer or partial(torch.optim.AdamW, betas=(0.9, settings.beta2), fused=True)
        optimiser = make(
            [
                {"params": params, "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0}
                for (rate, decays), params in groups.items()
            ]
        )
        rise = round(settings.warmup * settings.steps)
        schedule_of = self.scheduler_of or partial(LambdaLR, lr_lambda=cosine(settings.steps, rise))
        schedule = schedule_of(optimiser)
        if self.discriminator is None:
            return [optimiser], [{"scheduler": schedule, "interval": "step"}]
        opponent = torch.optim.AdamW(self.discriminator.parameters(), lr=self.stage.synergy.lr)
        return [optimiser, opponent], [{"scheduler": schedule, "interval": "step"}]


class _Reach(Function):
    """The loss unchanged; parameters without a gradient take part in the backward pass all the same."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.count = len(parameters)
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], *[None] * ctx.count


def _shares(counts: Sequence[Mapping[str, int]]) -> list[dict[str, float]]:
    """Return the share of each part in the items of each loss."""
    totals = dict[str, int]()
    for count in counts:
        for name, number in count.items():
            totals[name] = totals.get(name, 0) + number
    return [{name: number / totals[name] for name, number in count.items()} for count in counts]


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
