# SPDX-License-Identifier: Apache-2.0
"""The U-Net and its text towers: latents and captions kept on disk, one training step, the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from recipes.tiny_sdxl.autoencoder import encode
from recipes.tiny_sdxl.images import SHARD, Kind, check_pool, load_pool, shard_files, time_ids_of, write_array
from recipes.tiny_sdxl.progress import Plan, WeightedModule, mean_weights, numbered_generator
from recipes.tiny_sdxl.words import (
    LAYERS,
    TIME_WIDTH,
    VARIANTS,
    WIDTH,
    build_tokenizers,
    build_towers,
    captions_of,
    encode_tokens,
    refill,
    tokenize,
)
from recipes.training import CHECKPOINT, fit

RUN = "unet-run"
HEAD_DIM = 16
ZEROS, EMPTY = 0.05, 0.05  # shares of samples without text: zeros in its place, or the encoded empty text
WINDOWS: dict[Kind, float] = {"base": 0.6, "zoom2": 0.25, "zoom4": 0.15}  # of a batch, towards the end


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserOptions:
    """Size and data of the U-Net.

    Attributes:
        widths: Channels from the latents' resolution down; the first level has no attention.
        depths: Transformer blocks of an attention layer, by level.
        batch_size: Images per step.
        window_steps: Number of last steps that see windows of larger scenes among whole ones.
        large_every: Every N-th of those shows scenes of twice the side, a quarter of the batch.
        seed: Random seed of weights, noise and choice.
        half: Whether convolutions and matrices run in bfloat16; weights stay in float32.
    """

    widths: tuple[int, ...] = (48, 64, 96)
    depths: tuple[int, ...] = (1, 2, 1)
    batch_size: int = 64
    window_steps: int = 3_000
    large_every: int = 5
    seed: int = 0
    half: bool = False


def build_scheduler() -> DDIMScheduler:
    """Return the scheduler of training and sampling."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="leading",
    )


def build_unet(
    widths: tuple[int, ...], depths: tuple[int, ...], latent_channels: int, sample_size: int = 16
) -> UNet2DConditionModel:
    """Return the untrained U-Net: attention to text everywhere but on the first level."""
    levels = len(widths)
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (levels - 1)),
        up_block_types=(*("CrossAttnUpBlock2D",) * (levels - 1), "UpBlock2D"),
        block_out_channels=widths,
        layers_per_block=1,
        transformer_layers_per_block=depths,
        attention_head_dim=tuple(width // HEAD_DIM for width in widths),  # read as the number of heads
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=WIDTH + 6 * TIME_WIDTH,
        norm_num_groups=16,
        use_linear_projection=True,
    )


class Denoiser(nn.Module):
    """U-Net and both text towers, trained together.

    Args:
        options: Size.
        latent_channels: Channels of a latent cell.
    """

    def __init__(self, options: DenoiserOptions, latent_channels: int) -> None:
        super().__init__()
        self.tokenizers: tuple[CLIPTokenizer, CLIPTokenizer] = build_tokenizers()
        first, second = build_towers(self.tokenizers)
        self.text_encoder: CLIPTextModel = first
        self.text_encoder_2: CLIPTextModelWithProjection = second
        self.unet = build_unet(options.widths, options.depths, latent_channels)
        # the fused attention is many times slower backward in bfloat16 on a CPU
        self.unet.set_attn_processor(AttnProcessor())
        self.half_precision = options.half
        alphas = build_scheduler().alphas_cumprod
        self.register_buffer("alphas", alphas, persistent=False)
        empty = torch.from_numpy(tokenize(self.tokenizers[0], [""])).long()
        self.register_buffer("empty", empty, persistent=False)

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens ``(B, L)`` of the first tokenizer: hidden ``(B, L, 2 * WIDTH)``, pooled."""
        first, second = self.tokenizers
        both = tokens, refill(tokens, cast(int, first.eos_token_id), cast(int, second.pad_token_id))
        return encode_tokens((self.text_encoder, self.text_encoder_2), both)

    def errors(self, batch: Batch) -> Tensor:
        """Return the squared error of the predicted velocity of each sample, ``(B,)``."""
        alpha = cast(Tensor, self.alphas)[batch.timesteps][:, None, None, None]
        noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise
        velocity = alpha.sqrt() * batch.noise - (1 - alpha).sqrt() * batch.latents
        tokens = torch.where((batch.drop == 2)[:, None], cast(Tensor, self.empty), batch.tokens)
        hidden, pooled = self.encode(tokens)
        keep = (batch.drop != 1).float()[:, None]
        conditions = {"text_embeds": pooled * keep, "time_ids": batch.time_ids}
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.half_precision):
            predicted = self.unet(
                noisy, batch.timesteps, hidden * keep[:, None], added_cond_kwargs=conditions
            ).sample
        return F.mse_loss(predicted.float(), velocity, reduction="none").mean(dim=(1, 2, 3))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step is computed from.

    Attributes:
        latents: ``(B, C, h, w)`` float32, deviation about 1.
        tokens: ``(B, L)`` int64, of the first tokenizer.
        time_ids: ``(B, 6)`` float32, pixels.
        timesteps: ``(B,)`` int64.
        noise: Noise like ``latents``.
        drop: ``(B,)`` int64: 0 keeps the text, 1 puts zeros in its place, 2 the empty text.
    """

    latents: Tensor
    tokens: Tensor
    time_ids: Tensor
    timesteps: Tensor
    noise: Tensor
    drop: Tensor

    def to(self, device: torch.device, **kwargs: Any) -> Batch:
        """Return the same on a device."""
        return Batch(**{each.name: getattr(self, each.name).to(device, **kwargs) for each in fields(self)})


class Latents:
    """Latents, captions and time ids of one kind of images, in memory.

    Args:
        folder: Folder of the latents, with the captions beside them.
        kind: Kind of images.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.latents = load_pool(folder / "latents", kind)
        self.tokens = load_pool(folder / "tokens", kind)
        self.time_ids = np.array([time_ids_of(kind, i) for i in range(len(self.latents))], dtype=np.float32)


class Batches:
    """The batches of a training; that of a step depends on the seed and the step only.

    Args:
        folder: Folder of latents and tokens.
        options: Size and mixture.
        steps: Steps in all.
    """

    def __init__(self, folder: Path, options: DenoiserOptions, steps: int) -> None:
        self.folder, self.options = folder, options
        self.first_window = steps - options.window_steps
        self.sources: dict[Kind, Latents] = {}

    def source(self, kind: Kind) -> Latents:
        """Return the images of a kind, read when first asked for."""
        if kind not in self.sources:
            self.sources[kind] = Latents(self.folder, kind)
        return self.sources[kind]

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        options = self.options
        rng = np.random.default_rng((options.seed, step))
        since = step - self.first_window
        if since < 0:
            return self._draw(rng, {"base": 1.0}, options.batch_size, step)
        if since % options.large_every == options.large_every - 1:
            return self._draw(rng, {"large": 1.0}, options.batch_size // 4, step)
        return self._draw(rng, WINDOWS, options.batch_size, step)

    def _draw(self, rng: np.random.Generator, shares: dict[Kind, float], B: int, step: int) -> Batch:
        kinds = list(shares)
        picks = [self.source(kinds[k]) for k in rng.choice(len(kinds), B, p=list(shares.values()))]
        rows = [int(rng.integers(len(source.latents))) for source in picks]
        variants = rng.integers(VARIANTS, size=B)
        # one timestep from each of B equal parts of the range, so that the loss of a step varies less
        timesteps = ((rng.permutation(B) + rng.random(B)) / B * 1000).astype(np.int64)
        chance = rng.random(B)
        latents = torch.from_numpy(
            np.stack([s.latents[i] for s, i in zip(picks, rows, strict=True)]).astype(np.float32)
        )
        tokens = np.stack([s.tokens[i, v] for s, i, v in zip(picks, rows, variants, strict=True)])
        return Batch(
            latents=latents,
            tokens=torch.from_numpy(tokens.astype(np.int64)),
            time_ids=torch.from_numpy(np.stack([s.time_ids[i] for s, i in zip(picks, rows, strict=True)])),
            timesteps=torch.from_numpy(timesteps),
            noise=torch.randn(latents.shape, generator=numbered_generator(self.options.seed, step)),
            drop=torch.from_numpy((chance < ZEROS + EMPTY).astype(np.int64) + (chance < EMPTY)),
        )


def write_latents(folder: Path, pool: Path, vae: AutoencoderKL, kinds: Sequence[Kind]) -> None:
    """Encode whatever is missing of the pool, latents in float16, and tokenise its captions.

    Args:
        folder: Gets ``latents`` and ``tokens``.
        pool: Folder of the images.
        vae: The finished autoencoder.
        kinds: Kinds of images.
    """
    tokenizer = build_tokenizers()[0]
    for name in ("latents", "tokens"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        check_pool(pool, kind)
        for file in shard_files(pool, kind):
            latent_file, token_file = folder / "latents" / file.name, folder / "tokens" / file.name
            if not latent_file.exists():
                latents = encode(vae, np.load(file)).cpu() * vae.config["scaling_factor"]
                write_array(latent_file, latents.half().numpy())
            if not token_file.exists():
                write_array(token_file, _tokens_of(tokenizer, kind, int(file.stem.rsplit("-", 1)[1])))


def _tokens_of(tokenizer: CLIPTokenizer, kind: Kind, shard: int) -> NDArray[np.uint16]:
    numbers = range(shard * SHARD, (shard + 1) * SHARD)
    texts = [text for number in numbers for text in captions_of(kind, number)]
    return tokenize(tokenizer, texts).astype(np.uint16).reshape(SHARD, VARIANTS, -1)


def train_denoiser(folder: Path, latent_channels: int, options: DenoiserOptions, plan: Plan) -> Denoiser:
    """Train U-Net and towers, or resume; return them with their mean weights.

    Args:
        folder: Folder of latents and tokens; checkpoint and logs go into a folder inside.
        latent_channels: Channels of the autoencoder.
        options: Size and data.
        plan: Length and speed.
    """
    torch.manual_seed(options.seed)
    denoiser = Denoiser(options, latent_channels)
    # the last layer of the first tower feeds nothing that SDXL reads
    for part in (denoiser.text_encoder.encoder.layers[LAYERS - 1], denoiser.text_encoder.final_layer_norm):
        part.requires_grad_(False)
    module = WeightedModule(denoiser, plan, lambda batch: denoiser.errors(batch).mean())
    batches = Batches(folder, options, plan.steps)
    fit(module, batches, folder / RUN, plan.run(), mean=mean_weights(plan.ema_decay))
    return denoiser.eval()


def load_denoiser(folder: Path, options: DenoiserOptions, latent_channels: int) -> Denoiser:
    """Return U-Net and towers with the mean weights of a run, finished or not.

    Args:
        folder: Folder that :func:`train_denoiser` trained in.
        options: Size.
        latent_channels: Channels of the autoencoder.
    """
    state = torch.load(folder / RUN / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
    denoiser = Denoiser(options, latent_channels)
    denoiser.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
    return denoiser
