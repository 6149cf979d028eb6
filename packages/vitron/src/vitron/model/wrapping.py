# SPDX-License-Identifier: Apache-2.0
"""The second path: a whole vision language model of transformers, to which regions and signals are added."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText

from vitron.model.regions import places, pool_masks

__all__ = ["VitronForImageTextToText", "WrapConfig"]

_WEIGHTS, _SETTINGS = "vitron.safetensors", "vitron.json"


@dataclass(frozen=True, slots=True)
class WrapConfig:
    """What is added to a backbone.

    Attributes:
        region_token_id: Placeholder of a region.
        signal_token_ids: Signal tokens, those of a task first.
        num_specific: How many of them belong to the task.
        conditions: As :class:`vitron.model.VitronConfig` has it.
    """

    region_token_id: int
    signal_token_ids: tuple[int, ...]
    num_specific: int = 4
    conditions: dict[str, dict[str, int]] = field(default_factory=dict)


class VitronForImageTextToText(nn.Module):
    """Any model that ``AutoModelForImageTextToText`` knows, with regions in and signals out.

    Pictures, placeholders and positions are the backbone's own business; regions are pooled from the features
    that it makes of pictures, and put in where its text has region placeholders.

    Args:
        backbone: The model.
        config: What is added.

    Raises:
        TypeError: If the backbone does not tell the features of pictures.
    """

    def __init__(self, backbone: Any, config: WrapConfig) -> None:
        super().__init__()
        if not hasattr(backbone, "get_image_features"):
            raise TypeError(
                f"{type(backbone).__name__} has no get_image_features: use an image-text-to-text model, as "
                "Llava or Qwen2.5-VL"
            )
        self.backbone = backbone
        self.config = config
        width = int(backbone.get_input_embeddings().weight.shape[1])
        self.region_features = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.region_location = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width))
        self.signal_norm = nn.LayerNorm(width)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, *, backbone: Path | str | None = None, **kwargs: Any
    ) -> VitronForImageTextToText:
        """Read what :meth:`save_pretrained` wrote.

        Args:
            folder: With the added weights.
            backbone: Folder or name of the model; by default the same folder.
            **kwargs: To ``AutoModelForImageTextToText.from_pretrained``.
        """
        settings = json.loads((Path(folder) / _SETTINGS).read_text(encoding="utf-8"))
        settings["signal_token_ids"] = tuple(settings["signal_token_ids"])
        model = AutoModelForImageTextToText.from_pretrained(
            backbone or folder, use_safetensors=True, **kwargs
        )
        wrapped = cls(model, WrapConfig(**settings))
        wrapped.load_state_dict(load_file(Path(folder) / _WEIGHTS), strict=False)
        return wrapped

    def save_pretrained(self, folder: Path | str, *, adapter_only: bool = False) -> None:
        """Write the added weights, and unless ``adapter_only`` the backbone."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not adapter_only:
            self.backbone.save_pretrained(folder)
        state = self.state_dict().items()
        own = {name: each.contiguous() for name, each in state if not name.startswith("backbone.")}
        save_file(own, folder / _WEIGHTS)
        (folder / _SETTINGS).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    def region_tokens(
        self,
        masks: Sequence[Tensor],
        pictures: Sequence[int],
        inputs: Mapping[str, Any],
        grids: Sequence[tuple[int, int]] | None,
    ) -> Tensor:
        """Return one token for each region, ``(R, D)``.

        Args:
            masks: ``(H, W)`` each, 0 to 1, of the picture.
            pictures: Which picture each lies on.
            inputs: What the backbone takes beside text.
            grids: Rows and columns of each picture's features; a square where ``None``.

        Raises:
            ValueError: If a picture's features are no such grid.
        """
        names = ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask")
        found = self.backbone.get_image_features(**{name: inputs[name] for name in names if name in inputs})
        features: Any = getattr(found, "pooler_output", found)
        tokens = list[Tensor]()
        for mask, picture in zip(masks, pictures, strict=True):
            patches: Tensor = features[picture]
            count = int(patches.shape[0])
            rows, columns = grids[picture] if grids else (round(count**0.5), round(count**0.5))
            if rows * columns != count:
                raise ValueError(
                    f"picture {picture} has {count} features, no {rows} x {columns} grid: give grids"
                )
            covered = F.adaptive_avg_pool2d(mask[None, None].float(), (rows, columns)).flatten(1)
            pooled = pool_masks(patches[None], covered.to(patches))
            side = max(mask.shape)
            whole = F.pad(mask.float(), (0, side - mask.shape[1], 0, side - mask.shape[0]))
            box = places(whole[None]) * side
            box = box / torch.tensor([mask.shape[1], mask.shape[0]] * 2).to(box)
            tokens.append(self.region_features(pooled) + self.region_location(box.to(pooled)))
        return torch.cat(tokens)

    @contextmanager
    def _regions(self, tokens: Tensor | None) -> Generator[None]:
        """Put region tokens where the text has placeholders, while the backbone runs."""
        if tokens is None:
            yield
            return

        def put(module: nn.Module, args: tuple[Tensor, ...], embeds: Tensor) -> Tensor:
            where = args[0] == self.config.region_token_id
            count = int(where.sum())
            if count == 0:  # later steps of a generation
                return embeds
            if count != len(tokens):
                raise ValueError(
                    f"the text has {count} placeholders of regions, and there are {len(tokens)} regions"
                )
            return embeds.masked_scatter(where[..., None].expand_as(embeds), tokens.to(embeds))

        handle = self.backbone.get_input_embeddings().register_forward_hook(put)
        try:
            yield
        finally:
            handle.remove()

    def forward(
        self,
        input_ids: Tensor,
        *,
        region_masks: Sequence[Tensor] = (),
        region_pictures: Sequence[int] = (),
        grids: Sequence[tuple[int, int]] | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the backbone.

        Args:
            input_ids: ``(B, L)``, as the backbone's processor makes them, with region placeholders.
            region_masks: In the order of the placeholders.
            region_pictures: Which picture each lies on.
            grids: See :meth:`region_tokens`.
            **inputs: To the backbone, labels and pictures among them.

        Returns:
            What the backbone returns, hidden states included.
        """
        tokens = (
            self.region_tokens(region_masks, region_pictures, inputs, grids) if len(region_masks) else None
        )
        with self._regions(tokens):
            return self.backbone(input_ids=input_ids, output_hidden_states=True, **inputs)

    def generate(
        self,
        input_ids: Tensor,
        *,
        region_masks: Sequence[Tensor] = (),
        region_pictures: Sequence[int] = (),
        grids: Sequence[tuple[int, int]] | None = None,
        **inputs: Any,
    ) -> Any:
        """Let the backbone write; regions are read once. Arguments as in :meth:`forward` and ``generate``."""
        tokens = (
            self.region_tokens(region_masks, region_pictures, inputs, grids) if len(region_masks) else None
        )
        with self._regions(tokens):
            return self.backbone.generate(input_ids=input_ids, **inputs)

    def signals(self, output: Any, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Take the signal embeddings of complete sets, as :meth:`VitronForConditionalGeneration.signals`.

        Args:
            output: Of :meth:`forward`.
            input_ids: ``(B, L)``.

        Returns:
            ``(K, num_signals, D)``, and the row of each.
        """
        hidden: Tensor = output.hidden_states[-1]
        wanted = torch.tensor(self.config.signal_token_ids, device=input_ids.device)
        starts = (input_ids.unfold(1, len(wanted), 1) == wanted).all(-1).nonzero()
        at = starts[:, 1:] + torch.arange(len(wanted), device=input_ids.device)
        taken = hidden[starts[:, :1], at] + self.backbone.get_input_embeddings()(wanted)
        return self.signal_norm(taken.to(self.signal_norm.weight.dtype)), starts[:, 0]
