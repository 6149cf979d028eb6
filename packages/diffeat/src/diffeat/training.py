# SPDX-License-Identifier: Apache-2.0
"""Training of heads with Lightning; the denoiser stays frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from common_kernels.runtime.files import write_text
from common_kernels.runtime.fingerprint import digest_settings
from common_kernels.runtime.lightning import expected_warnings
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, Dataset, Sampler

from diffeat.heads import (
    HEAD_FILE,
    AggregationHead,
    Head,
    HeadConfig,
    Kind,
    SegmentationHead,
    build_head,
    correspondence_loss,
    lovasz_softmax,
    save_head,
)
from diffeat.options import ExtractionOptions, TrainingOptions
from diffeat.pck import of_category
from diffeat.ranking.labels import IGNORED, MaskLabels
from diffeat.segment import resize_mask

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor
    from diffeat.pck import Pair

try:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
except ImportError as error:
    raise ImportError("training needs the extra 'train': pip install 'diffeat[train]'") from error

_Head = TypeVar("_Head", AggregationHead, SegmentationHead)
Maps = dict[str, Tensor]


class PairData(Dataset[tuple[Maps, Maps, Tensor, Tensor]]):
    """Pairs with points, as features of both images and points in shares.

    Args:
        pairs: Pairs of one data set.
        features: Function from an image and its category to its activations, ``(1, C, h, w)`` each.
    """

    def __init__(self, pairs: Sequence[Pair], features: Callable[[Path, str], Maps]) -> None:
        self.pairs = [pair for pair in pairs if len(pair.source_points)]
        self.features = features

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Maps, Maps, Tensor, Tensor]:
        pair = self.pairs[index]
        start = (pair.source_points / torch.tensor(pair.source_size)).float()
        end = (pair.target_points / torch.tensor(pair.target_size)).float()
        source = self.features(pair.source, pair.category)
        return source, self.features(pair.target, pair.category), start, end


class MaskData(Dataset[tuple[Maps, Tensor]]):
    """Images with masks, as features and class numbers, ``(H, W)`` on a square.

    Args:
        labels: The images and masks.
        features: Function from the number of an image to its activations, ``(1, C, h, w)`` each.
        side: Pixels per side of the square to which masks are resized.
    """

    def __init__(self, labels: MaskLabels, features: Callable[[int], Maps], side: int) -> None:
        self.labels = labels
        self.features = features
        self.side = side

    def __len__(self) -> int:
        return len(self.labels.images)

    def __getitem__(self, index: int) -> tuple[Maps, Tensor]:
        wanted = resize_mask(self.labels.masks[index], self.side)
        return {name: value[0] for name, value in self.features(index).items()}, wanted


class HeadModule(pl.LightningModule):
    """A head and its loss; ``load_from_checkpoint`` needs the path alone.

    Args:
        head: The head, or the fields of its :class:`~diffeat.heads.HeadConfig`, and ``grids`` for a
            segmentation, as LightningCLI reads them.
        options: Rate, decay, temperature and so on, or their values by name.
        optimizer: Function from the parameters to an optimiser; AdamW if ``None``.
        scheduler: Function from the optimiser to a scheduler, which is stepped after each step; a polynomial
            of power 0.9 if ``None``.
    """

    def __init__(
        self,
        head: Head | Mapping[str, Any],
        options: TrainingOptions | Mapping[str, Any] | None = None,
        *,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if isinstance(head, Mapping):
            fields = dict(head)
            grids = fields.pop("grids", None)
            head = build_head(HeadConfig.from_dict(fields), grids)
        if not isinstance(options, TrainingOptions):
            options = TrainingOptions(**(options or {}))
        self.head: Head = head
        self.options = options
        self.optimizer, self.scheduler = optimizer, scheduler
        self.losses: list[float] = []
        stored = asdict(head.config) | ({"grids": head.grids} if isinstance(head, SegmentationHead) else {})
        # plain values only: a checkpoint is loaded without running code
        self.save_hyperparameters({"head": stored, "options": asdict(options)}, logger=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        loss = (
            self._segmentation(*batch) if isinstance(self.head, SegmentationHead) else self._matching(batch)
        )
        mean = self.trainer.strategy.reduce(loss.detach(), reduce_op="mean")  # over the processes
        self.losses.append(float(cast("Tensor", mean)))
        self.log("loss", loss, prog_bar=True, batch_size=self.options.batch_size)
        return loss

    def _matching(self, batch: Sequence[tuple[Maps, Maps, Tensor, Tensor]]) -> Tensor:
        losses: list[Tensor] = []
        for source, target, start, end in batch:
            one, other = self.head(source)[0], self.head(target)[0]
            losses.append(correspondence_loss(one, other, start, end, temperature=self.options.temperature))
        return torch.stack(losses).mean()

    def _segmentation(self, features: Maps, masks: Tensor) -> Tensor:
        logits, auxiliary = (
            F.interpolate(each, masks.shape[1:], mode="bilinear", align_corners=False)
            for each in self.head(features)
        )
        main = F.cross_entropy(logits, masks, ignore_index=IGNORED)
        beside = F.cross_entropy(auxiliary, masks, ignore_index=IGNORED)
        lovasz = lovasz_softmax(logits, masks, ignore_index=IGNORED)
        return main + self.options.lovasz * lovasz + self.options.auxiliary * beside

    def configure_optimizers(self) -> Any:
        """By default AdamW with a rate that falls as a polynomial."""
        options = self.options
        make = self.optimizer or partial(AdamW, lr=options.rate, weight_decay=options.weight_decay)
        optimizer = make(self.head.parameters())
        schedule_of = self.scheduler or partial(PolynomialLR, total_iters=options.steps, power=0.9)
        schedule = schedule_of(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the losses for the report."""
        checkpoint["losses"] = self.losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the losses."""
        self.losses = list(checkpoint["losses"])


class _Shuffles(Sampler[int]):
    """Ever new shuffles, from the step at which the module stands: a resumed run sees the same batches.

    A step of several processes takes what as many batches hold, a batch each.
    """

    def __init__(self, count: int, module: HeadModule) -> None:
        self.count, self.module = count, module

    def __len__(self) -> int:
        return self.module.options.steps * self.module.options.batch_size

    def __iter__(self) -> Iterator[int]:
        options, trainer = self.module.options, self.module.trainer
        for step in range(self.module.global_step, options.steps):
            start = (step * trainer.world_size + trainer.global_rank) * options.batch_size
            for place in range(start, start + options.batch_size):
                shuffle, index = divmod(place, self.count)
                yield int(np.random.default_rng([options.seed, shuffle]).permutation(self.count)[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadTraining:
    """A training of a head over the features of a frozen model.

    Attributes:
        extractor: The frozen model.
        names: Activations.
        extraction: Options of the extraction; several timesteps are learned together.
        options: Options of the training.
        folder: Folder of checkpoint and head; a run that was stopped goes on from there.
        callbacks: Callbacks of the trainer.
        trainer: Further arguments of the Lightning Trainer, such as ``logger``, ``devices`` and ``strategy``.
            Each of several processes computes the features of its own batches.
    """

    extractor: FeatureExtractor
    names: Sequence[str]
    extraction: ExtractionOptions
    options: TrainingOptions
    folder: Path
    callbacks: Sequence[pl.Callback] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def on_pairs(self, pairs: Sequence[Pair]) -> tuple[AggregationHead, list[float]]:
        """Train an aggregation head on pairs with points.

        Args:
            pairs: Training pairs; ``{category}`` in the prompt is replaced by the category.

        Returns:
            The head, and the loss of each step.

        Raises:
            ValueError: If there are no pairs with points, or the folder holds another training.

        Source: arXiv 2305.14334; loss and rate of arXiv 2410.03558, App. B.
        """

        @lru_cache(self.options.keep)
        def features(path: Path, category: str) -> Maps:
            return dict(self.extractor([path], self.names, of_category(self.extraction, category)))

        data = PairData(pairs, features)
        if not len(data):
            raise ValueError("training needs at least one pair with points, got none")
        config = self._config("aggregation", data[0][0], side=self.options.side)
        head = self._seeded(lambda: AggregationHead(config))
        return head, self._fit(head, data, [pair.name for pair in data.pairs])

    def on_masks(self, labels: MaskLabels) -> tuple[SegmentationHead, list[float]]:
        """Train a segmentation head on masks.

        Args:
            labels: Images and masks; at least as many as a batch, which are at least 2.

        Returns:
            The head, and the loss of each step.

        Raises:
            ValueError: If there are fewer images than a batch, or the folder holds another training.

        Source: arXiv 2410.03558, App. B: cross-entropy, Lovász and auxiliary loss.
        """
        if not 2 <= self.options.batch_size <= len(labels.images):
            raise ValueError(
                f"batch_size must lie between 2 (for its normalisation) and the {len(labels.images)} images, "
                f"got {self.options.batch_size}"
            )

        @lru_cache(self.options.keep)
        def features(index: int) -> Maps:
            return dict(self.extractor([labels.images[index]], self.names, self.extraction))

        first = features(0)
        config = self._config("upernet", first, classes=tuple(labels.classes), dropout=self.options.dropout)
        grids = {name: value.shape[2] for name, value in first.items()}
        head = self._seeded(lambda: SegmentationHead(config, grids))
        return head, self._fit(head, MaskData(labels, features, self.options.mask_side), labels.digest())

    def _config(self, kind: Kind, maps: Maps, **fields: Any) -> HeadConfig:
        if any(value.ndim != 4 for value in maps.values()):
            raise ValueError(
                "heads take activations (B, C, h, w): maps and text tokens have no place on the image"
            )
        return HeadConfig(
            kind=kind,
            channels={name: value.shape[1] for name, value in maps.items()},
            dim=self.options.dim,
            names=tuple(self.names),
            options=self.extraction,
            model=self.extractor.name,
            **fields,
        )

    def _seeded(self, build: Callable[[], _Head]) -> _Head:
        with torch.random.fork_rng():
            torch.manual_seed(self.options.seed)
            return build()

    def _fit(self, head: Head, data: PairData | MaskData, what: object) -> list[float]:
        """Train, or go on from the checkpoint of the same training; return the losses."""
        options, folder = self.options, self.folder
        digest = digest_settings([head.config, replace(options, keep=1), what])
        note, last = folder / "training.txt", folder / "last.ckpt"
        if last.is_file() and (not note.is_file() or note.read_text("utf-8") != digest):
            raise ValueError(f"{folder} holds a training with other settings or data: give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(note, digest)
        device = next(iter(data[0][0].values())).device
        module = HeadModule(head, options)
        loader = DataLoader(
            cast("Dataset[Any]", data),
            batch_size=options.batch_size,
            sampler=_Shuffles(len(data), module),
            collate_fn=list if isinstance(head, AggregationHead) else None,
        )
        saver = ModelCheckpoint(
            folder,
            filename="last",
            save_top_k=1,
            every_n_train_steps=options.save_every,
            enable_version_counter=False,
        )
        arguments: dict[str, Any] = {
            "max_steps": options.steps,
            "max_epochs": 1,
            "accelerator": "cpu" if device.type == "cpu" else "auto",
            "devices": 1 if device.type == "cpu" else [device.index or 0],
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,  # each process draws its own batches
        }
        trainer = pl.Trainer(**arguments | {**self.trainer}, callbacks=[saver, *self.callbacks])
        with expected_warnings():
            trainer.fit(module, loader, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
        head.cpu().eval()
        if trainer.is_global_zero:
            save_head(head, folder / HEAD_FILE)
        return module.losses
