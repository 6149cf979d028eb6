# SPDX-License-Identifier: Apache-2.0
"""Where tokens lie: a change of one latent cell shows at its own place of the grid, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffeat import capture, list_activations
from diffusers import (
    ChromaTransformer2DModel,
    CogVideoXTransformer3DModel,
    CogView4Transformer2DModel,
    HunyuanVideoTransformer3DModel,
    Lumina2Transformer2DModel,
    MochiTransformer3DModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
)

# what diffusers' own models warn of
pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
B, TEXT = 2, 5
HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Case:
    """A model, the name and shape of its latent, and the other arguments of a call.

    ``index`` is a value of the latent, ``cell`` the place of its token in the ``grid``.
    """

    model: torch.nn.Module
    name: str
    shape: tuple[int, ...]
    rest: dict[str, Any]
    index: tuple[Any, ...]
    grid: tuple[int, ...]
    cell: tuple[int, ...]


def cogvideox(time: int | None) -> Case:
    model = CogVideoXTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        sample_width=8,
        sample_height=4,
        sample_frames=9,
        max_text_seq_length=TEXT,
        patch_size=2,
        patch_size_t=time,
        use_rotary_positional_embeddings=True,
        patch_bias=time is None,
    )
    steps = 4 // (time or 1)
    rest = {"encoder_hidden_states": noise(B, TEXT, 8), "timestep": torch.tensor([5, 5])}
    return Case(
        model,
        "hidden_states",
        (B, 4, 4, 4, 8),
        rest,
        (0, 3, 1, 2, 7),
        (steps, 2, 4),
        (3 // (time or 1), 1, 3),
    )


def hunyuan_video() -> Case:
    model = HunyuanVideoTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        text_embed_dim=8,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 6, 6),
    )
    rest = {
        "encoder_hidden_states": noise(B, TEXT, 8),
        "encoder_attention_mask": torch.ones(B, TEXT),
        "pooled_projections": noise(B, 8),
        "guidance": torch.ones(B),
        "timestep": torch.tensor([5, 5]),
    }
    return Case(model, "hidden_states", (B, 4, 3, 4, 8), rest, (0, 1, 2, 3, 1), (3, 2, 4), (2, 1, 0))


def mochi() -> Case:
    model = MochiTransformer3DModel(
        **{**HEADS, "num_layers": 2},
        patch_size=2,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=8,
        time_embed_dim=8,
        max_sequence_length=TEXT,
    )
    rest = {
        "encoder_hidden_states": noise(B, TEXT, 8),
        "encoder_attention_mask": torch.ones(B, TEXT, dtype=torch.bool),
        "timestep": torch.tensor([5, 5]),
    }
    return Case(model, "hidden_states", (B, 4, 3, 4, 8), rest, (0, 1, 2, 3, 1), (3, 2, 4), (2, 1, 0))


def wan(frames: int) -> Case:
    model = WanTransformer3DModel(
        **HEADS, in_channels=4, out_channels=4, text_dim=8, freq_dim=8, ffn_dim=32, rope_max_seq_len=32
    )
    rest = {"encoder_hidden_states": noise(B, TEXT, 8), "timestep": torch.tensor([5, 5])}
    grid, cell = ((2, 4), (1, 0)) if frames == 1 else ((frames, 2, 4), (frames - 1, 1, 0))
    return Case(model, "hidden_states", (B, 4, frames, 4, 8), rest, (0, 1, frames - 1, 3, 1), grid, cell)


def lumina2(lengths: tuple[int, int]) -> Case:
    model = Lumina2Transformer2DModel(
        sample_size=8,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        in_channels=4,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(16, 16, 16),
        cap_feat_dim=8,
    )
    mask = (torch.arange(TEXT) < torch.tensor(lengths)[:, None]).long()
    rest = {
        "encoder_hidden_states": noise(B, TEXT, 8),
        "encoder_attention_mask": mask,
        "timestep": torch.tensor([0.5, 0.5]),
    }
    return Case(model, "hidden_states", (B, 4, 4, 8), rest, (0, 1, 3, 1), (2, 4), (1, 0))


def z_image() -> Case:
    model = ZImageTransformer2DModel(
        dim=24,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        in_channels=4,
        cap_feat_dim=8,
        axes_dims=[4, 4, 4],
        axes_lens=[96, 16, 16],
    )
    # parameters that the constructor leaves without values
    for parameter in (model.x_pad_token, model.cap_pad_token):
        torch.nn.init.zeros_(parameter)
    rest = {"cap_feats": [noise(TEXT, 8), noise(40, 8)], "t": torch.tensor([0.5, 0.5])}
    return Case(model, "x", (B, 4, 1, 4, 8), rest, (0, 1, 0, 3, 1), (2, 4), (1, 0))


def chroma() -> Case:
    model = ChromaTransformer2DModel(
        **HEADS,
        in_channels=4,
        num_single_layers=1,
        joint_attention_dim=8,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8,
        approximator_hidden_dim=8,
        approximator_layers=1,
    )
    ids = torch.stack([torch.zeros(8), torch.arange(8) // 4, torch.arange(8) % 4], dim=1)
    rest = {
        "encoder_hidden_states": noise(B, TEXT, 8),
        "timestep": torch.tensor([0.5, 0.5]),
        "img_ids": ids,
        "txt_ids": torch.zeros(TEXT, 3),
    }
    return Case(model, "hidden_states", (B, 8, 4), rest, (0, 4, 1), (2, 4), (1, 0))


CASES: dict[str, Callable[[], Case]] = {
    "CogVideoX": lambda: cogvideox(None),
    "CogVideoX 1.5": lambda: cogvideox(2),
    "HunyuanVideo": hunyuan_video,
    "Mochi": mochi,
    "Wan": lambda: wan(3),
    "Wan, one frame": lambda: wan(1),
    "Lumina2": lambda: lumina2((5, 5)),
    "Lumina2, texts of two lengths": lambda: lumina2((3, 5)),
    "Z-Image": z_image,
    "Chroma": chroma,
}


def call(case: Case, latent: torch.Tensor) -> None:
    stream = list(latent) if case.name == "x" else latent
    with torch.no_grad():
        case.model.eval()(**{case.name: stream}, **case.rest)


def unmixed(model: torch.nn.Module) -> None:
    """Let every attention add nothing, so that no token hears of another."""
    for path, module in model.named_modules():
        if path.endswith("to_out.0"):
            torch.nn.init.zeros_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)


@pytest.mark.parametrize("kind", CASES)
def test_a_cell_shows_at_its_own_place(kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        case = CASES[kind]()
    unmixed(case.model)
    names = [str(a.name) for a in list_activations(case.model, size=None) if not a.name.is_map]
    latent = noise(*case.shape)
    found: list[dict[str, torch.Tensor]] = []
    for shift in (0.0, 1.0):
        moved = latent.clone()
        moved[case.index] += shift
        with capture(case.model, names) as recording:
            call(case, moved)
        found.append(dict(recording))
    assert list(found[0]) == names
    place = torch.zeros(B, *case.grid, dtype=torch.bool)
    place[(0, *case.cell)] = True
    for name in names:
        before, after = found[0][name], found[1][name]
        assert before.shape[0] == B
        assert before.shape[2:] == case.grid
        changed = (before != after).any(dim=1)
        if name.endswith("attn-out") and not bool(changed.any()):
            continue  # it adds nothing here
        if _is_mixed(case.model, name):
            continue
        assert torch.equal(changed, place), name


def _is_mixed(model: torch.nn.Module, name: str) -> bool:
    """Single blocks join attention and feed-forward in one projection, which cannot be switched off alone."""
    has_singles = hasattr(model, "single_transformer_blocks")
    return has_singles and name in {"vit-block1-out", "vit-block1-attn-out"}


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "Lumina2, texts of two lengths"])
def test_maps_are_softmaxes_over_image_and_text(kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        case = CASES[kind]()
    if kind == "Z-Image":  # maps of a batch need texts of one length
        case.rest["cap_feats"][1] = case.rest["cap_feats"][0]
    names = [str(a.name) for a in list_activations(case.model, size=None) if a.name.is_map]
    with capture(case.model, names) as found:
        call(case, noise(*case.shape))
    for block in {name.rsplit("-", 2)[0] for name in names}:
        maps = {
            end: found[f"{block}-{end}"] for end in ("self-map", "cross-map") if f"{block}-{end}" in found
        }
        assert all(value.shape[:-1] == (B, 2, *case.grid) for value in maps.values())
        is_joint = f"{block}-cross-q" not in {str(a.name) for a in list_activations(case.model, size=None)}
        sums = [value.sum(-1) for value in maps.values()]
        whole = [sum(sums)] if is_joint else sums
        if kind == "Z-Image":
            assert all(bool((each <= 1 + 1e-5).all()) for each in whole)  # the image is filled up with tokens
            continue
        for each in whole:
            torch.testing.assert_close(each, torch.ones_like(each), rtol=1e-5, atol=1e-5)


def test_maps_of_texts_of_two_lengths_are_refused() -> None:
    case = lumina2((3, 5))
    with pytest.raises(ValueError, match="texts of one length"), capture(case.model, "vit-block1-self-map"):
        call(case, noise(*case.shape))


def test_an_unknown_order_of_text_and_image_is_refused() -> None:
    model = CogView4Transformer2DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        text_embed_dim=8,
        time_embed_dim=8,
        condition_dim=4,
        patch_size=2,
        rope_axes_dim=(16, 16),
    )
    sizes = torch.tensor([[32.0, 32.0]])
    rest = {
        "encoder_hidden_states": noise(1, TEXT, 8),
        "timestep": torch.tensor([5]),
        "original_size": sizes,
        "target_size": sizes,
        "crop_coords": torch.zeros(1, 2),
    }
    case = Case(model, "hidden_states", (1, 4, 4, 8), rest, (), (2, 4), ())
    message = "exactly 8 tokens for a grid of 2 x 4, got 13"
    with pytest.raises(ValueError, match=message), capture(model, "vit-block0-self-q"):
        call(case, noise(*case.shape))
