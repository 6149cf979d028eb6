# SPDX-License-Identifier: Apache-2.0
"""Every activation against its module called by hand, and against the sums that blocks are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffeat import ExtractionOptions, FeatureExtractor
from diffeat.names.listing import taps_of


def frozen(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        return type(value)(frozen(each) for each in value)
    return {key: frozen(each) for key, each in value.items()} if isinstance(value, dict) else value


@contextmanager
def spied(model: torch.nn.Module) -> Iterator[dict[str, SimpleNamespace]]:
    """What every module was called with and what it gave, by path."""
    calls: dict[str, SimpleNamespace] = {}

    def note(path: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            calls[path] = SimpleNamespace(args=frozen(args), kwargs=frozen(kwargs), output=frozen(output))

        return hook

    handles = [
        module.register_forward_hook(note(path), with_kwargs=True) for path, module in model.named_modules()
    ]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.fixture(scope="module")
def runs(pipelines, images):
    """One run of each family: features, text side included, and what the modules were called with."""
    found: dict[str, SimpleNamespace] = {}

    def run(family: str) -> SimpleNamespace:
        if family not in found:
            extractor = FeatureExtractor(pipelines(family))
            names = [tap.name for tap in taps_of(extractor.model)]
            with spied(extractor.model) as calls:
                features = extractor(images, names, ExtractionOptions(prompt="a cat", size=64))
            found[family] = SimpleNamespace(model=extractor.model, features=features, calls=calls)
        return found[family]

    return run


def spread(tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Tokens row by row on a grid, by the plainest means."""
    rows = [tokens[:, i * like.shape[3] : (i + 1) * like.shape[3]] for i in range(like.shape[2])]
    return torch.stack(rows, dim=1).permute(0, 3, 1, 2)


FAMILIES = ["SD1.5", "SDXL", "PixArt", "Hunyuan", "SD3", "Flux"]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_activation_equals_its_module_called_by_hand(runs, family):
    run = runs(family)
    checked = 0
    for tap in taps_of(run.model):
        if tap.port == "map":
            continue  # below, by what the attention makes of them
        path = tap.sources[0].path
        call = run.calls[path]
        if tap.port == "input":
            expected = call.args[0] if call.args else call.kwargs["hidden_states"]
        else:
            expected = run.model.get_submodule(path)(*call.args, **call.kwargs)
        if not isinstance(expected, torch.Tensor):
            expected = tuple(expected)[tap.item]
        got = run.features[tap.name]
        if tap.layout == "tokens":
            tokens = got.shape[2] * got.shape[3]
            expected = spread(expected[:, -tokens:] if tap.text_first else expected[:, :tokens], got)
        torch.testing.assert_close(
            got, expected, rtol=1e-5, atol=1e-5, msg=lambda text, t=tap: f"{t.name}: {text}"
        )
        checked += 1
    assert checked == sum(tap.port != "map" for tap in taps_of(run.model)) > 10


@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
@torch.no_grad()
def test_residual_sums(runs, family):
    run = runs(family)
    seen = 0
    for tap in taps_of(run.model):
        name = tap.name
        if name.part != "res" or name.kind != "out":
            continue
        path = tap.sources[0].path
        res, x = run.model.get_submodule(path), run.calls[path].args[0]
        shortcut = x if res.conv_shortcut is None else res.conv_shortcut(x)
        increment = run.features[str(name).replace("-out", "-increment")]
        expected = (shortcut + increment) / res.output_scale_factor
        torch.testing.assert_close(run.features[name], expected, rtol=1e-5, atol=1e-5)
        seen += 1
    assert seen == (22 if family == "SD1.5" else 17)


@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
@torch.no_grad()
def test_a_vit_adds_its_projected_last_block(runs, family):
    run = runs(family)
    seen = 0
    for tap in taps_of(run.model):
        if tap.name.part != "vit" or tap.name.block is not None:
            continue
        path = tap.sources[0].path
        vit, call = run.model.get_submodule(path), run.calls[path]
        last = run.calls[f"{path}.transformer_blocks.{len(vit.transformer_blocks) - 1}"].output
        out = run.features[tap.name]
        if vit.use_linear_projection:
            projected = spread(vit.proj_out(last), out)
        else:
            projected = vit.proj_out(spread(last, out))
        torch.testing.assert_close(out - call.args[0], projected, rtol=1e-5, atol=1e-5)
        seen += 1
    assert seen == (16 if family == "SD1.5" else 11)


@pytest.mark.parametrize("family", ["SD1.5", "SDXL", "Hunyuan"])
@torch.no_grad()
def test_a_block_is_the_sum_of_its_last_residual(runs, family):
    run = runs(family)
    seen = 0
    for tap in taps_of(run.model):
        if tap.name.kind != "out" or tap.name.block is None:
            continue
        path = tap.sources[0].path
        before = run.calls[f"{path}.norm3"].args[0]
        expected = before + run.calls[f"{path}.ff"].output
        got = run.features[tap.name]
        torch.testing.assert_close(got, spread(expected, got), rtol=1e-5, atol=1e-5)
        seen += 1
    assert seen > 0


def heads_of(image: torch.Tensor, heads: int) -> torch.Tensor:
    """``(B, C, h, w)`` or text ``(B, L, C)`` to ``(B, heads, N, head_dim)``."""
    tokens = image.flatten(2).transpose(1, 2) if image.ndim == 4 else image
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def merged(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """What attention of weights ``(B, heads, h, w, M)`` to values gives, heads side by side."""
    return (weights.flatten(2, 3) @ values).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("family", ["SD1.5", "SDXL", "PixArt", "Hunyuan"])
@torch.no_grad()
def test_map_times_values_is_what_the_attention_gives(runs, family):
    run = runs(family)
    seen = 0
    for tap in taps_of(run.model):
        if tap.port != "map":
            continue
        path = tap.sources[0].path
        attention = run.model.get_submodule(path)
        weights = run.features[tap.name]
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), rtol=1e-5, atol=1e-5)
        values = heads_of(run.features[str(tap.name).replace("-map", "-v")], weights.shape[1])
        got = attention.to_out[0](merged(weights, values))
        torch.testing.assert_close(got, run.calls[path].output, rtol=1e-5, atol=1e-5)
        seen += 1
    assert seen == sum(name.endswith("-map") for name in run.features)


def test_masked_text_gets_no_attention(runs):
    run = runs("PixArt")
    weights = run.features["vit-block0-cross-map"]
    # "a cat" is a handful of tokens; the rest of the window is padding
    used = weights.amax(dim=(0, 1, 2, 3)) > 1e-6
    assert 1 < int(used.sum()) < used.numel() / 2


@pytest.mark.parametrize("family", ["SD3", "Flux"])
@torch.no_grad()
def test_joint_maps_times_joint_values(runs, family):
    run = runs(family)
    seen = 0
    for tap in taps_of(run.model):
        if tap.port != "map" or tap.keys != "image":
            continue
        stem = str(tap.name).removesuffix("-self-map")
        path = tap.sources[0].path
        attention = run.model.get_submodule(path)
        to_image, to_text = (run.features[f"{stem}-{kind}-map"] for kind in ("self", "cross"))
        total = to_image.sum(-1) + to_text.sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=1e-5)
        count = to_image.shape[1]
        if getattr(attention, "add_v_proj", None) is not None:
            text = run.calls[f"{path}.add_v_proj"].output
        else:  # single stream: text stands in front
            text = run.calls[f"{path}.to_v"].output[:, : to_text.shape[-1]]
        merge = merged(to_image, heads_of(run.features[f"{stem}-v"], count))
        merge = merge + merged(to_text, heads_of(text, count))
        is_single = attention.pre_only if hasattr(attention, "pre_only") else False
        got = merge if is_single else attention.to_out[0](merge)
        expected = run.features[f"{stem}-attn-out"]
        torch.testing.assert_close(spread(got, expected), expected, rtol=1e-5, atol=1e-5)
        seen += 1
    assert seen == (3 if family == "SD3" else 4)


@torch.no_grad()
def test_the_second_attention_of_sd3(runs):
    run = runs("SD3")
    weights = run.features["vit-block0-self2-map"]
    attention = run.model.transformer_blocks[0].attn2
    merge = merged(weights, heads_of(run.features["vit-block0-self2-v"], weights.shape[1]))
    expected = run.features["vit-block0-self2-out"]
    torch.testing.assert_close(spread(attention.to_out[0](merge), expected), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_flux_block_out_is_the_residual_stream(runs):
    """The authors' ``out`` of double blocks is the modulated input of the feed-forward."""
    run = runs("Flux")
    for block in range(2):
        path = f"transformer_blocks.{block}"
        out = run.features[f"vit-block{block}-out"]
        _, stream = run.calls[path].output
        assert torch.equal(out, spread(stream, out))
        following = run.calls[
            f"transformer_blocks.{block + 1}" if block == 0 else "single_transformer_blocks.0"
        ]
        assert torch.equal(out, spread(following.kwargs["hidden_states"], out))
        paper = run.features[f"vit-block{block}-paper-out"]
        assert torch.equal(paper, run.features[f"vit-block{block}-norm-out"])
        torch.testing.assert_close(
            paper, spread(run.calls[f"{path}.ff"].args[0], paper), rtol=1e-5, atol=1e-5
        )
        assert (out - paper).abs().mean() > 0.01
