# SPDX-License-Identifier: Apache-2.0
"""The network: stages wired in a column or in a U."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, Unpack

import torch
from common_kernels import Backend
from common_kernels.runtime.files import atomic_path
from common_kernels.runtime.hub import WEIGHTS_FILE, DType, HubOptions, resolve_device, resolve_dtype
from common_kernels.runtime.publishing import find_repository
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from semanir.config import SemanIRConfig
from semanir.functional import enlarge_bicubic, pad_to_multiple
from semanir.modules.attention import KeySemanticAttention
from semanir.modules.blocks import DictionaryOptions, Layer, Stage
from semanir.modules.heads import DegradationEncoder, downsample, reconstruction, upsample
from semanir.weights import CONFIG_TENSOR, encode_config, find_folder, load_folder

# of what ``push_to_hub`` writes; figures are given with ``model_card_kwargs={"metrics": "..."}``
_MODEL_CARD = """---
{{ card_data }}
---

Weights of SemanIR for the package semanir: [paper]({{ paper_url }})
{%- if repository %}, [repository]({{ repository }}){% endif %}, licence Apache-2.0.

```python
from semanir import Restorer

Restorer.from_pretrained("{{ repo_id | default('owner/name', true) }}").restore(image)
```

{{ metrics | default("Figures of these weights were not given.", true) }}
"""


class SemanIR(
    nn.Module,
    PyTorchModelHubMixin,
    coders={SemanIRConfig: (SemanIRConfig.to_dict, SemanIRConfig.from_dict)},
    library_name="semanir",
    license="apache-2.0",
    pipeline_tag="image-to-image",
    tags=["image-restoration"],
    paper_url="https://arxiv.org/abs/2405.20008",
    model_card_template=_MODEL_CARD,
):
    """Image restoration by a transformer whose layers share each stage's key-semantic dictionary.

    Args:
        config: What the network is made of.

    Shape:
        - x: ``(B, in_channels, H, W)``, nominally in [0, 1], any size from 1x1
        - output: ``(B, out_channels, upscale * H, upscale * W)``, not clamped

    Example:
        >>> import torch
        >>> model = SemanIR.from_pretrained("tiny-denoise")
        >>> model(torch.rand(1, 3, 37, 50)).shape
        torch.Size([1, 3, 37, 50])

    Source: SemanIR, NeurIPS 2024, arXiv 2405.20008.
    """

    def __init__(self, config: SemanIRConfig) -> None:
        super().__init__()
        self.config = config
        self.register_load_state_dict_pre_hook(_without_config)
        self.mean: Tensor
        mean = torch.tensor(config.mean or (0.0,))
        self.register_buffer("mean", mean.view(-1, 1, 1), persistent=False)
        in_dim = config.in_channels * config.patch_unshuffle**2
        self.conv_first = nn.Conv2d(in_dim, config.embed_dims[0], 3, padding=1)
        if config.architecture == "columnar":
            dim = config.embed_dims[0]
            self.stages = nn.ModuleList(
                _stage(config, number, level=0) for number in range(len(config.depths))
            )
            self.norm_start, self.norm_end = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
            self.tail = reconstruction(dim, config.out_channels, config.upscale, config.upsampler)
        else:
            self._build_unet()

    def _build_unet(self) -> None:
        config, dims = self.config, self.config.embed_dims
        deepest = len(dims) - 1
        # down, bottom, up, final
        levels = [*range(deepest), deepest, *reversed(range(deepest)), 0]
        self.stages = nn.ModuleList(_stage(config, number, level) for number, level in enumerate(levels))
        if config.degradation_dim:
            self.degradation = DegradationEncoder(dims[0], config.degradation_dim, [dims[i] for i in levels])
        kind = config.resampling
        self.down = nn.ModuleList(downsample(dims[i], dims[i + 1], kind) for i in range(deepest))
        self.up = nn.ModuleList(upsample(dims[i + 1], dims[i], kind) for i in reversed(range(deepest)))
        self.fuse = nn.ModuleList(nn.Conv2d(2 * dims[i], dims[i], 1) for i in reversed(range(deepest)))
        self.tail = nn.Conv2d(dims[0], config.out_channels * config.patch_unshuffle**2, 3, padding=1)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride] - narrower on purpose
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device = "auto",
        dtype: DType | torch.dtype = "auto",
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load a model by name, folder or hub id, in evaluation mode.

        Args:
            name_or_path: A shipped name such as ``"tiny-denoise"``, a folder written by ``save_pretrained``,
                the ``.safetensors`` file in it, or ``"owner/name"`` on the hub.
            device: Device; ``"auto"`` takes the accelerator if there is one.
            dtype: Compute dtype; ``"auto"`` is float32, whatever the file stores.
            **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and ``force_download``.

        Raises:
            ModelNotFoundError: If there is no such model or its files cannot be used.
            ValueError: If the device or dtype is unknown, or the weights belong to another configuration.
        """
        folder = find_folder(name_or_path, **hub)
        config, weights = load_folder(folder)
        model = cls(config)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"the weights in {folder} do not fit its configuration: {error}") from error
        return model.to(device=resolve_device(device), dtype=resolve_dtype(dtype)).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the weights, and the configuration among them for programs that load single files."""
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        tensors[CONFIG_TENSOR] = encode_config(self.config)
        with atomic_path(save_directory / WEIGHTS_FILE) as part:
            save_file(tensors, part, metadata={"format": "pt"})

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the model card of ``push_to_hub``, with the address of the repository."""
        return super().generate_model_card(*args, repository=find_repository("semanir"), **kwargs)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Choose whether layers compute their activations again in the backward pass, which saves memory."""
        for stage in self.stages:
            assert isinstance(stage, Stage), "nothing else is in the list"
            stage.gradient_checkpointing = enabled

    def forward(self, x: Tensor, *, k: int | None = None, backend: Backend = "auto") -> Tensor:
        """Restore a batch of images.

        Args:
            x: ``(B, in_channels, H, W)``, nominally in [0, 1].
            k: Keys per token at this call; the configuration's if ``None``.
            backend: Implementation of the attention, as in :func:`common_kernels.knn_attention`.

        Returns:
            ``(B, out_channels, upscale * H, upscale * W)``, not clamped.

        Raises:
            ValueError: If ``x`` has another number of channels or an empty side.
        """
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_channels or min(x.shape[-2:]) < 1:
            raise ValueError(f"x must be (B, {config.in_channels}, H, W), got shape {tuple(x.shape)}")
        k = config.k if k is None else k
        H, W = x.shape[-2:]
        padded = pad_to_multiple(x - self.mean, config.size_multiple)
        body = self._forward_column if config.architecture == "columnar" else self._forward_unet
        y = body(padded, k, backend)
        s = config.upscale
        return y[..., : s * H, : s * W] + self.mean

    def _forward_column(self, x: Tensor, k: int, backend: Backend) -> Tensor:
        features = self.conv_first(x)
        y = _norm_channels(self.norm_start, features)
        for stage in self.stages:
            y = stage(y, k=k, backend=backend)
        return self.tail(self.conv_after_body(_norm_channels(self.norm_end, y)) + features)

    def _forward_unet(self, x: Tensor, k: int, backend: Backend) -> Tensor:
        fold, upscale = self.config.patch_unshuffle, self.config.upscale
        x = enlarge_bicubic(x, upscale) if upscale > 1 else x
        y = self.conv_first(F.pixel_unshuffle(x, fold) if fold > 1 else x)
        guess = iter(self.degradation(y) if self.config.degradation_dim else [None] * len(self.stages))
        stages = iter(self.stages)

        def run(y: Tensor) -> Tensor:
            return next(stages)(_modulate(y, next(guess)), k=k, backend=backend)

        skips: list[Tensor] = []
        for down in self.down:
            y = run(y)
            skips.append(y)
            y = down(y)
        y = run(y)
        for up, fuse in zip(self.up, self.fuse, strict=True):
            y = run(fuse(torch.cat([up(y), skips.pop()], dim=1)))
        y = self.tail(run(y))
        y = F.pixel_shuffle(y, fold) if fold > 1 else y
        return y + x if self.config.in_channels == self.config.out_channels else y


def _modulate(x: Tensor, guess: Tensor | None) -> Tensor:
    """Scale and shift the channels of ``(B, C, H, W)`` as the guessed degradation asks."""
    if guess is None:
        return x
    scale, shift = guess.chunk(2, dim=1)
    return x * (1 + scale) + shift


def _without_config(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Let ``load_state_dict`` take the whole content of a file that ``save_pretrained`` wrote."""
    state_dict.pop(prefix + CONFIG_TENSOR, None)


def _norm_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _stage(config: SemanIRConfig, number: int, level: int) -> Stage:
    dim, heads, depth = config.embed_dims[level], config.num_heads[level], config.depths[number]
    half = config.window_size // 2
    shifts = {
        "none": [0] * depth,
        "stage": [half * (number % 2)] * depth,
        "layer": [half * (i % 2) for i in range(depth)],
    }[config.shift]
    layers = [
        Layer(
            dim,
            KeySemanticAttention(
                dim,
                heads,
                window_size=config.window_size,
                logits=config.logits,
                position_bias=config.position_bias,
            ),
            mlp_ratio=config.mlp_ratio,
            norm=config.norm,
        )
        for _ in range(depth)
    ]
    return Stage(
        layers,
        dim=dim,
        window_size=config.window_size,
        shifts=shifts,
        num_conv_blocks=config.conv_blocks[number] if config.conv_blocks else 0,
        options=DictionaryOptions(config.similarity, config.force_self),
    )
