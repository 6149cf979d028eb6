# SPDX-License-Identifier: Apache-2.0
"""Trained heads over many activations: aggregation for correspondence, UPerNet for segmentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self, Unpack, cast

import torch
from common_kernels.runtime.files import atomic_path
from common_kernels.runtime.hub import HubOptions, find_model, is_hub_id
from common_kernels.runtime.publishing import CardOptions, push_folder, write_card
from torch import Tensor, nn
from torch.nn import functional as F

from diffeat.features import Features
from diffeat.options import ExtractionOptions

_FORMAT = "diffeat-head-1"
HEAD_FILE = "head.safetensors"
Kind = Literal["aggregation", "upernet"]
_CARD = CardOptions(
    title="A head over features of a frozen diffusion model",
    library="diffeat",
    paper="https://arxiv.org/abs/2410.03558",
    pipeline_tag="image-feature-extraction",
    usage='from diffeat.heads import load_head\n\nhead = load_head("{repo_id}", "{kind}")',
    tags=("diffusion-features",),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """What a head is made of, and the features it was trained on.

    Attributes:
        kind: Class of the head.
        channels: Channels of each activation, by its name with ``@`` and the timestep if there are several.
        dim: Channels of the head's own features.
        side: Cells of the shorter side of an aggregation; ``None`` is that of its finest activation.
        classes: Names of the classes of a segmentation.
        pool_scales: Cells per side of the pooled maps of UPerNet.
        dropout: Share of the channels that the classifiers of UPerNet do not see in training.
        names: Names asked for in the extraction.
        options: Options of the extraction.
        model: Name of the model.
    """

    kind: Kind
    channels: dict[str, int]
    dim: int
    side: int | None = None
    classes: tuple[str, ...] = ()
    pool_scales: tuple[int, ...] = (1, 2, 3)
    dropout: float = 0.0
    names: tuple[str, ...] = ()
    options: ExtractionOptions = field(default_factory=ExtractionOptions)
    model: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the values of ``dataclasses.asdict``, JSON lists included."""
        plain: dict[str, Any] = {
            name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
            for name, value in values.items()
        }
        plain["options"] = ExtractionOptions.from_dict(values.get("options", {}))
        return cls(**plain)


class AggregationHead(nn.Module):
    """Learned mean of many activations at many timesteps, for nearest neighbours.

    A bottleneck of its own brings each activation to the same channels, whatever the timestep; a softmax over
    all activations and timesteps weights them.

    Args:
        config: Channels of each activation; ``dim`` is the width of the result.

    Source: arXiv 2305.14334 (aggregation network).
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.keys = tuple(config.channels)
        plain = {key.partition("@")[0]: channels for key, channels in config.channels.items()}
        self.bottlenecks = nn.ModuleDict(
            {_module_name(name): _Bottleneck(channels, config.dim) for name, channels in plain.items()}
        )
        # equal weights at first
        self.mixing = nn.Parameter(torch.zeros(len(self.keys)))

    @property
    def weights(self) -> dict[str, float]:
        """Learned share of each activation and timestep; they sum to 1."""
        return dict(zip(self.keys, self.mixing.detach().softmax(0).tolist(), strict=True))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Aggregate activations.

        Args:
            features: ``(B, C, h, w)`` of each activation.

        Returns:
            ``(B, dim, h, w)`` on the finest grid, or with ``side`` cells on the shorter side.
        """
        check_channels(self.config, features)
        height, width = max((tuple(features[key].shape[2:]) for key in self.keys), key=prod)
        if self.config.side is not None:
            short = min(height, width)
            height = round(self.config.side * height / short)
            width = round(self.config.side * width / short)
        shares = self.mixing.softmax(0)
        total: Tensor | None = None
        for key, share in zip(self.keys, shares, strict=True):
            value = self.bottlenecks[_module_name(key.partition("@")[0])](features[key].float())
            value = F.interpolate(value, (height, width), mode="bilinear", align_corners=False)
            total = share * value if total is None else total + share * value
        assert total is not None
        return total

    @torch.no_grad()
    def of_image(self, features: Features) -> Tensor:
        """Aggregate the features of one image, ``(dim, h, w)`` on the CPU."""
        return self(features.to("cpu"))[0]


class SegmentationHead(nn.Module):
    """UPerNet over activations, which form a level for each size of their grids.

    Args:
        config: Channels of each activation; ``dim`` is the width of the head.
        grids: Rows of each activation's grid, which sort them into levels, the finest first.

    Source: arXiv 2410.03558, App. B (UPerNet with an auxiliary head); the head is that of transformers.
    """

    def __init__(self, config: HeadConfig, grids: Mapping[str, int]) -> None:
        super().__init__()
        from transformers import UperNetConfig
        from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

        self.config = config
        self.grids = dict(grids)
        sides = sorted(set(grids.values()), reverse=True)
        self.levels = [[key for key in config.channels if grids[key] == side] for side in sides]
        widths = [sum(config.channels[key] for key in level) for level in self.levels]
        own = cast("Any", UperNetConfig)(
            hidden_size=config.dim,
            pool_scales=config.pool_scales,
            auxiliary_in_channels=widths[0],
            auxiliary_channels=config.dim,
            num_labels=len(config.classes),
        )
        self.head = UperNetHead(own, widths)
        self.auxiliary = UperNetFCNHead(own, widths, in_index=0)
        # transformers has none; whole channels, before both classifiers
        for part in (self.head, self.auxiliary):
            part.classifier.register_forward_pre_hook(self._drop)
        # the scale of activations differs by orders of magnitude
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for width in widths)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Classify cells.

        Args:
            features: ``(B, C, h, w)`` of each activation.

        Returns:
            Logits of the head and of the auxiliary head, ``(B, classes, h, w)`` on the finest grid.
        """
        check_channels(self.config, features)
        maps = [
            norm(torch.cat([features[key].float() for key in level], dim=1))
            for level, norm in zip(self.levels, self.norms, strict=True)
        ]
        return self.head(maps), self.auxiliary(maps)

    def _drop(self, _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return F.dropout2d(inputs[0], self.config.dropout, training=self.training)

    def predict(self, features: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Class probabilities of one image, ``(classes, *size)``."""
        with torch.no_grad():
            logits = self(features)[0]
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)[0].softmax(0)


class _Bottleneck(nn.Module):
    """Residual bottleneck from any number of channels, normalised in groups."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        inner = max(1, dim // 4)
        self.body = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.GroupNorm(1, inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.GroupNorm(1, inner),
            nn.ReLU(),
            nn.Conv2d(inner, dim, 1, bias=False),
        )
        self.shortcut = nn.Conv2d(channels, dim, 1, bias=False)
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, value: Tensor) -> Tensor:
        return self.body(value) + self.shortcut(self.norm(value))


def check_channels(config: HeadConfig, features: Mapping[str, Tensor]) -> None:
    """Refuse features that a head was not made for.

    Raises:
        ValueError: If an activation is missing or has other channels.
    """
    for name, channels in config.channels.items():
        found = features[name].shape[1] if name in features else None
        if found != channels:
            given = "none" if found is None else found
            raise ValueError(f"the head was trained on {channels} channels of {name}, got {given}")


Head = AggregationHead | SegmentationHead


def correspondence_loss(
    source: Tensor, target: Tensor, start: Tensor, end: Tensor, *, temperature: float = 0.07
) -> Tensor:
    """Symmetric cross-entropy of points over all cells of the other image.

    Args:
        source: Features ``(C, h, w)``.
        target: Features ``(C, h', w')``.
        start: Points of the source, ``(N, 2)`` in shares.
        end: The same points in the target.
        temperature: Divisor of the cosines.

    Returns:
        Mean loss; the logarithm of the number of cells is that of guessing.

    Source: arXiv 2410.03558, App. B; authors' code.
    """
    from diffeat.match import sample

    losses: list[Tensor] = []
    for one, other, here, there in ((source, target, start, end), (target, source, end, start)):
        height, width = other.shape[1:]
        vectors = F.normalize(sample(one[None], here[None])[0], dim=1)  # (N, C)
        cells = F.normalize(other.flatten(1), dim=0)  # (C, h * w)
        column = (there[:, 0] * width).long().clamp(0, width - 1)
        row = (there[:, 1] * height).long().clamp(0, height - 1)
        wanted = (row * width + column).to(vectors.device)
        losses.append(F.cross_entropy(vectors @ cells / temperature, wanted))
    return (losses[0] + losses[1]) / 2


def lovasz_softmax(logits: Tensor, labels: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Lovász extension of the intersection over union, the mean over the classes that occur.

    Args:
        logits: ``(B, classes, H, W)``.
        labels: Class numbers ``(B, H, W)``.
        ignore_index: Class number of ignored pixels.

    Returns:
        Loss in [0, 1]; 0 if no pixel is labelled.

    Source: arXiv 1705.08790, Eq. 8 and 11, Algorithm 1.
    """
    probs = logits.softmax(1).movedim(1, -1).flatten(0, 2)  # (N, classes)
    flat = labels.flatten()
    kept = flat != ignore_index
    probs, flat = probs[kept], flat[kept]
    losses: list[Tensor] = []
    for number in flat.unique().tolist():
        truth = (flat == number).float()
        errors, order = (truth - probs[:, number]).abs().sort(descending=True)
        truth = truth[order]
        jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
        losses.append(errors @ torch.cat([jaccard[:1], jaccard.diff()]))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def build_head(config: HeadConfig, grids: Mapping[str, int] | None = None) -> Head:
    """Return a head with new weights.

    Args:
        config: Kind, channels and so on.
        grids: Cells per side of each activation, which a segmentation needs.
    """
    return AggregationHead(config) if config.kind == "aggregation" else SegmentationHead(config, grids or {})


def save_head(head: Head, path: str | Path) -> None:
    """Write a head as safetensors; its configuration is in the header."""
    from safetensors.torch import save_file

    grids = head.grids if isinstance(head, SegmentationHead) else {}
    header = {"format": _FORMAT, "config": json.dumps(asdict(head.config)), "grids": json.dumps(grids)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    with atomic_path(Path(path)) as file:
        save_file(tensors, file, metadata=header)


def push_head(
    head: Head,
    repo_id: str,
    *,
    metrics: Mapping[str, float | str] | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload head",
) -> str:
    """Upload a head to the hub, with a model card.

    Args:
        head: The head.
        repo_id: Such as ``"owner/name"``.
        metrics: Figures of the card by their names, with data set and unit.
        token: Access token of the hub; ``None`` takes the stored one.
        private: Whether a new repository is private; ``None`` for what the owner's settings say.
        revision: Branch.
        commit_message: Message of the commit.

    Returns:
        Address of the commit.
    """
    model = head.config.model
    card = replace(_CARD, usage=_CARD.usage.replace("{kind}", head.config.kind))
    with TemporaryDirectory() as folder:
        save_head(head, Path(folder, HEAD_FILE))
        base = model if is_hub_id(model) else None
        write_card(folder, card, repo_id=repo_id, base_model=base, metrics=metrics)
        return push_folder(
            folder,
            repo_id,
            token=token,
            private=private,
            revision=revision,
            commit_message=commit_message,
        )


def load_head(path: str | Path, kind: Kind, **hub: Unpack[HubOptions]) -> Head:
    """Read a head for inference.

    Args:
        path: File of :func:`save_head`, or hub id of :func:`push_head`.
        kind: Kind that is wanted.
        **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no head, or one of the other kind.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not Path(path).is_file() and is_hub_id(str(path)) and Path(path).suffix != ".safetensors":
        path = Path(find_model(path, download=[HEAD_FILE], index_file=HEAD_FILE, **hub), HEAD_FILE)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: it is written by diffeat train")
    try:
        with safe_open(path, framework="pt") as file:
            header = cast("dict[str, str]", file.metadata() or {})
        if header.get("format") != _FORMAT:
            raise ValueError("it was not written by diffeat train")
        config = HeadConfig.from_dict(json.loads(header["config"]))
        tensors = load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a head: {error}") from error
    if config.kind != kind:
        raise ValueError(f"{path} is a head of kind {config.kind!r}, and {kind!r} is needed here")
    head = build_head(config, json.loads(header["grids"]))
    head.load_state_dict(tensors)
    return head.eval()


def _module_name(name: str) -> str:
    return name.replace(".", "/")
