# SPDX-License-Identifier: Apache-2.0
"""Caches, offloading, casting and compilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffeat import ExtractionOptions, FeatureExtractor, capture
from diffeat.hooks.guards import hooks_of, may_stop
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig

NAMES = ["down-level0-repeat0-res-out", "mid-vit-block0-self-map"]


def features(pipeline: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(FeatureExtractor(pipeline)(images, NAMES, ExtractionOptions(size=64)))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        FirstBlockCacheConfig(threshold=0.1),
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
        ),
    ],
)
def test_caches_that_skip_blocks_are_refused(fresh, images, config):
    pipeline = fresh("Flux")
    pipeline.transformer.enable_cache(config)
    with pytest.raises(
        RuntimeError, match=r"every block to run, but FluxTransformer2DModel .* disable_cache"
    ):
        FeatureExtractor(pipeline)(images, "vit-block1-out", ExtractionOptions(size=64))
    with pytest.raises(RuntimeError, match="disable_cache"), capture(pipeline, "vit-block1-out"):
        pass
    pipeline.transformer.disable_cache()
    assert len(FeatureExtractor(pipeline)(images, "vit-block1-out", ExtractionOptions(size=64))) == 1


def test_weights_fetched_module_by_module(fresh, images):
    """Accelerate's offloading: the pass is finished, so that every module gives its weights back."""
    pipeline = fresh("SD1.5")
    expected = features(pipeline, images)
    cpu_offload(pipeline.unet, execution_device=torch.device("cpu"))
    assert not may_stop(pipeline.unet)
    assert all(weight.is_meta for weight in pipeline.unet.parameters())
    assert_same(features(pipeline, images), expected)
    assert all(weight.is_meta for weight in pipeline.unet.parameters())


def test_weights_fetched_in_groups(fresh, images):
    pipeline = fresh("SD1.5")
    expected = features(pipeline, images)
    pipeline.unet.enable_group_offload(
        onload_device=torch.device("cpu"),
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
    )
    assert any("group_offloading" in name for name in hooks_of(pipeline.unet))
    assert not may_stop(pipeline.unet)
    assert_same(features(pipeline, images), expected)


def test_an_offloaded_pass_is_finished_before_the_block_is_left(fresh):
    pipeline = fresh("SD1.5")
    cpu_offload(pipeline.unet, execution_device=torch.device("cpu"))
    ran: list[str] = []
    handle = pipeline.unet.conv_out.register_forward_hook(lambda *_: ran.append("end"))
    with capture(pipeline, NAMES, stop_after=0) as found:
        pipeline(
            "a cat", height=64, width=64, num_inference_steps=3, guidance_scale=1.0, output_type="latent"
        )
    handle.remove()
    assert ran == ["end"]
    assert list(found) == NAMES


def test_layers_stored_in_less_precision(fresh, images):
    pipeline = fresh("SD1.5")
    expected = features(pipeline, images)
    pipeline.unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    found = features(pipeline, images)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.cosine_similarity(found[name].flatten(), value.flatten(), dim=0) > 0.999
    stored = {weight.dtype for weight in pipeline.unet.mid_block.parameters()}
    assert torch.bfloat16 in stored


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_compiled_models_run_eagerly_inside(fresh, images, how):
    pipeline = fresh("SD1.5")
    expected = features(pipeline, images)
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(1)
        return graph.forward

    if how == "wrapped":
        pipeline.unet = torch.compile(pipeline.unet, backend=backend)
    else:
        pipeline.unet.compile(backend=backend)
    assert_same(features(pipeline, images), expected)
    assert graphs == []
    with capture(pipeline, NAMES) as found:
        pipeline(
            "a cat", height=64, width=64, num_inference_steps=1, guidance_scale=1.0, output_type="latent"
        )
    assert list(found) == NAMES
    assert graphs == []
