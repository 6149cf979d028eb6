# SPDX-License-Identifier: Apache-2.0
"""Features of several models as one: normalisation, massive channels, a tower of timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from common_kernels.runtime.hub import resolve_device
from torch import Tensor, nn
from torch.nn import functional as F

from diffeat.features import Features
from diffeat.images import ImageLike, fit, load_images
from diffeat.options import ExtractionOptions
from diffeat.presets import preset

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor


def unit_vectors(values: Tensor) -> Tensor:
    """Scale the channels of each cell to length 1, ``(B, C, h, w)``."""
    return F.normalize(values.float(), dim=1)


def fuse(
    parts: Sequence[Tensor], weights: Sequence[float] | None = None, *, side: int | None = None
) -> Tensor:
    """Concatenate features of several models, each as unit vectors times its weight.

    Without it the model of the largest values decides alone. The cosine of two cells of the result is the
    mean of the models' cosines, weighted by the squares of ``weights``.

    Args:
        parts: Features of the same images by each model, ``(B, C_i, h_i, w_i)``.
        weights: Weight of each; all equal if ``None``.
        side: Cells of the shorter side of the result; by default the largest grid among the parts.

    Returns:
        ``(B, sum of C_i, h, w)``, fp32.

    Raises:
        ValueError: If there are no parts, or numbers do not fit.

    Source: arXiv 2305.15347: Stable Diffusion and DINO as unit vectors, weighted and concatenated.
    """
    weights = [1.0] * len(parts) if weights is None else list(weights)
    if not parts or len(weights) != len(parts):
        raise ValueError(f"each part must have one weight, got {len(weights)} for {len(parts)} parts")
    if len({len(part) for part in parts}) > 1 or any(part.ndim != 4 for part in parts):
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"parts must be (B, C, h, w) of the same images, got {shapes}")
    height, width = max((tuple(part.shape[2:]) for part in parts), key=prod)
    if side is not None:
        short = min(height, width)
        height, width = round(side * height / short), round(side * width / short)
    # resized first: means of unit vectors are shorter than 1
    resized = [F.interpolate(p.float(), (height, width), mode="bilinear", align_corners=False) for p in parts]
    device = resized[0].device
    return torch.cat(
        [weight * unit_vectors(part.to(device)) for part, weight in zip(resized, weights, strict=True)], dim=1
    )


def massive_channels(values: Tensor, *, factor: float = 20.0) -> Tensor:
    """Find the few channels in which a transformer's values are many times those of the others.

    They are the same at all cells, so that cosines compare little else.

    Args:
        values: ``(B, C, h, w)``.
        factor: A channel is massive if its mean magnitude exceeds the median channel's this many times.

    Returns:
        Indices of the channels, int64.

    Source: arXiv 2505.18584 (DiTF), which finds them in fixed channels of diffusion transformers, and
        normalises by the block's own modulation: that is the activation ``norm-out`` here. The threshold is
        ours.
    """
    size = values.detach().float().abs().mean(dim=(0, 2, 3))
    return (size > factor * size.median()).nonzero().flatten()


def drop_channels(values: Tensor, channels: Tensor) -> Tensor:
    """Set channels of ``(B, C, h, w)`` to 0, in a copy."""
    kept = torch.ones(values.shape[1], dtype=torch.bool, device=values.device)
    kept[channels] = False
    return values * kept[:, None, None]


def extract_parts(
    name: str,
    extractors: Mapping[str, FeatureExtractor],
    images: ImageLike | Sequence[ImageLike],
    options: ExtractionOptions | Mapping[str, ExtractionOptions] | None = None,
    *,
    batch_size: int = 8,
) -> dict[str, Features]:
    """Extract a preset over several models, such as ``"Ours-XL-t"``.

    Args:
        name: Name of the preset.
        extractors: The model of each part, by the names that the preset gives them.
        images: Images, see :class:`diffeat.FeatureExtractor`.
        options: Options of all models, or of each.
        batch_size: Images per pass.

    Returns:
        Features of each part; :func:`fuse` joins their concatenations.

    Raises:
        LookupError: If a part has no model.
    """
    parts = preset(name).parts
    if missing := [part.model for part in parts if part.model not in extractors]:
        raise LookupError(
            f"preset {name!r} needs a model for {', '.join(missing)}, got {', '.join(extractors)}"
        )
    found: dict[str, Features] = {}
    for part in parts:
        own = options.get(part.model) if isinstance(options, Mapping) else options
        found[part.model] = extractors[part.model](images, part.names, own, batch_size=batch_size)
    return found


class Tower:
    """A vision transformer or convolutional network of timm, such as DINOv2, as features beside a denoiser.

    Args:
        model: A model of timm with ``forward_intermediates``.
        layer: Index of the block whose output is taken; negative counts from the end.

    Source: arXiv 2305.15347 takes the tokens of DINOv2's last layers.
    """

    def __init__(self, model: nn.Module, *, layer: int = -1) -> None:
        if not hasattr(model, "forward_intermediates"):
            raise TypeError(
                f"a tower must be a model of timm with forward_intermediates, got {type(model).__name__}"
            )
        self.model: Any = model.eval()
        self.layer = layer
        config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
        self._mean = torch.tensor(config.get("mean") or (0.485, 0.456, 0.406)).view(3, 1, 1)
        self._std = torch.tensor(config.get("std") or (0.229, 0.224, 0.225)).view(3, 1, 1)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        checkpoint: str | Path | None = None,
        layer: int = -1,
        device: str | torch.device = "auto",
    ) -> Self:
        """Load a model of timm.

        Args:
            name: Name in timm, such as ``"vit_base_patch14_dinov2"``.
            checkpoint: Safetensors file with its weights; by default timm fetches them.
            layer: Index of the block.
            device: Device to run on.

        Raises:
            ImportError: If timm is missing.
            ValueError: If timm has no such model, or the checkpoint is no safetensors file.
        """
        try:
            import timm
        except ImportError as error:
            raise ImportError("towers need the extra 'tower': pip install 'diffeat[tower]'") from error
        if checkpoint is not None and Path(checkpoint).suffix != ".safetensors":
            raise ValueError(f"weights of a tower must be a .safetensors file, got {checkpoint}")
        if not timm.is_model(name):
            raise ValueError(f"timm has no model {name!r}; timm.list_models() lists them")
        extra: dict[str, Any] = {} if checkpoint is None else {"checkpoint_path": str(checkpoint)}
        if "vit" in name:
            extra["dynamic_img_size"] = True
        model = timm.create_model(name, pretrained=checkpoint is None, num_classes=0, **extra)
        return cls(model.to(resolve_device(device)), layer=layer)

    @property
    def step(self) -> int:
        """Pixels per cell and side: sides of images are multiples of it."""
        patch = getattr(getattr(self.model, "patch_embed", None), "patch_size", None) or (32, 32)
        return int(patch[0])

    def __call__(self, images: ImageLike | Sequence[ImageLike], side: int) -> Tensor:
        """Features of images, ``(B, C, h, w)``, fp32.

        Args:
            images: Paths, Pillow images, arrays or tensors in [0, 1].
            side: Cells per side of the square to which images are resized, whatever their aspect ratio.
        """
        size = (side * self.step, side * self.step)
        device = next(self.model.parameters()).device
        found: list[Tensor] = []
        for image in load_images(images):
            batch = ((fit(image, size) - self._mean) / self._std)[None].to(device)
            with torch.no_grad():
                layers = self.model.forward_intermediates(
                    batch, indices=[self._index()], norm=True, output_fmt="NCHW", intermediates_only=True
                )
            found.append(layers[0].float())
        return torch.cat(found)

    def _index(self) -> int:
        blocks = getattr(self.model, "blocks", None)
        return self.layer if self.layer >= 0 or blocks is None else len(blocks) + self.layer
