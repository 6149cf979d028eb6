# SPDX-License-Identifier: Apache-2.0
"""Vision tower of the small model: the tower of the small CLIP, distilled into that of InternVL.

CLIP normalises its embeddings before the first layer, InternVL does not; all other layers correspond. The
norm is folded into the embeddings as if all patches had the same deviation, and a short distillation removes
the rest of the difference.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import InternVLVisionModel

from recipes.vitron_tiny.building import SIDE, tower_config

__all__ = ["distil_tower", "load_clip_tower", "read_tower"]

FILE = "tower.safetensors"
RATE = 1e-3  # peak learning rate


def load_clip_tower(folder: Path | None = None) -> Any:
    """Return the vision tower of an open_clip model; by default of the one that itaclip ships."""
    folder = folder or Path(str(resources.files("itaclip") / "assets" / "tiny-shapes"))
    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32")
    return model.visual.eval().requires_grad_(False)


def distil_tower(
    frames: Tensor, out: Path, *, steps: int = 1200, batch_size: int = 32, seed: int = 0
) -> float:
    """Distil the tower of the small CLIP, and write its weights.

    Args:
        frames: Images of the world, ``(N, S, S, 3)`` uint8.
        out: Folder of the weights.
        steps: Number of steps.
        batch_size: Images per step.
        seed: Random seed of the order.

    Returns:
        Mean squared error of the last hidden states on the last 50 batches, over their variance.
    """
    teacher = load_clip_tower()
    student = InternVLVisionModel(tower_config())
    layers = len(student.encoder.layer)
    student.load_state_dict(_initial_weights(teacher.state_dict(), _to_pixels(frames[:1000]), layers))
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    order = torch.Generator().manual_seed(seed)
    errors = list[float]()
    for _ in range(steps):
        pixels = _to_pixels(frames[torch.randint(len(frames), (batch_size,), generator=order)])
        wanted = _clip_states(teacher, pixels, layers)
        found = student(pixel_values=pixels, output_hidden_states=True).hidden_states[1:]
        last = F.mse_loss(found[-1], wanted[-1]) / wanted[-1].var()
        inner = [F.mse_loss(_normed(a), _normed(b)) for a, b in zip(found, wanted, strict=True)]
        optimizer.zero_grad()
        (2 * last + 3 * inner[-1] + 0.5 * sum(inner[:-1])).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        errors.append(float(last.detach()))
    out.mkdir(parents=True, exist_ok=True)
    save_file(student.state_dict(), out / FILE)
    return sum(errors[-50:]) / len(errors[-50:])


def read_tower(folder: Path) -> dict[str, Tensor] | None:
    """Return the weights that :func:`distil_tower` wrote; ``None`` if there are none."""
    path = folder / FILE
    return load_file(path) if path.exists() else None


def _to_pixels(frames: Tensor) -> Tensor:
    if frames.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"frames must be (N, {SIDE}, {SIDE}, 3), got {tuple(frames.shape)}")
    return (frames.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def _normed(states: Tensor) -> Tensor:
    return F.layer_norm(states, states.shape[-1:])


@torch.no_grad()
def _clip_states(tower: Any, pixels: Tensor, layers: int) -> list[Tensor]:
    """Return the states ``(B, P + 1, C)`` behind the first layers of a tower of open_clip."""
    kept = list[Tensor]()
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        for block in list(tower.transformer.resblocks)[:layers]
    ]
    try:
        tower(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return kept


@torch.no_grad()
def _initial_weights(clip: dict[str, Tensor], pixels: Tensor, layers: int) -> dict[str, Tensor]:
    """Return weights under the names of InternVL, with the norm of the embeddings folded into them."""
    conv, places = clip["conv1.weight"], clip["positional_embedding"]
    width = conv.shape[0]
    patches = F.conv2d(pixels, conv, stride=conv.shape[-1]).flatten(2).transpose(1, 2) + places[1:]
    spread = patches.std(-1, correction=0).mean()
    first = F.layer_norm(clip["class_embedding"] + places[0], (width,))
    first = first * clip["ln_pre.weight"] + clip["ln_pre.bias"]
    centre = torch.eye(width) - 1 / width
    fold = clip["ln_pre.weight"][:, None] * centre
    places = places @ (fold / spread).T + clip["ln_pre.bias"]
    found = {
        "embeddings.patch_embeddings.projection.weight": torch.einsum("oc,cijk->oijk", fold / spread, conv),
        "embeddings.patch_embeddings.projection.bias": torch.zeros(width),
        "embeddings.position_embeddings": places[None],
        "embeddings.cls_token": (first - places[0])[None, None],
    }
    names = {
        "layernorm_before": "ln_1",
        "layernorm_after": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    names["attention.projection_layer"] = "attn.out_proj"
    for number in range(layers):
        here, there = f"encoder.layer.{number}.", f"transformer.resblocks.{number}."
        found |= {f"{here}lambda_1": torch.ones(width), f"{here}lambda_2": torch.ones(width)}
        for kind in ("weight", "bias"):
            found |= {f"{here}{new}.{kind}": clip[f"{there}{old}.{kind}"] for new, old in names.items()}
            parts = clip[f"{there}attn.in_proj_{kind}"].chunk(3)
            found |= {f"{here}attention.{q}_proj.{kind}": part for q, part in zip("qkv", parts, strict=True)}
    return found
