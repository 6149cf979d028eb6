# SPDX-License-Identifier: Apache-2.0
"""Fused projections give what separate ones give."""

import pytest
import torch
from diffeat import ExtractionOptions, FeatureExtractor
from diffeat.names.listing import taps_of

PROJECTIONS = ["*-{q,k,v}", "*-{self,cross}-map"]


@pytest.mark.parametrize("family", ["SD1.5", "SDXL", "PixArt", "Hunyuan", "SD3", "Flux"])
def test_fused_and_separate_projections_agree(fresh, images, family):
    pipeline = fresh(family)
    if family == "SD3":  # fused, diffusers knows neither a second attention nor normalised queries
        config = {**pipeline.transformer.config, "dual_attention_layers": (), "qk_norm": None}
        pipeline.transformer = type(pipeline.transformer).from_config(config).eval()
    extractor = FeatureExtractor(pipeline)
    text = [tap.name for tap in taps_of(extractor.model) if tap.name.is_text]
    names = [*PROJECTIONS, *text]
    separate = extractor(images[:1], names, ExtractionOptions(size=64))
    extractor.model.fuse_qkv_projections()
    fused = extractor(images[:1], names, ExtractionOptions(size=64))
    assert list(fused) == list(separate)
    for name, value in separate.items():
        torch.testing.assert_close(fused[name], value, rtol=1e-5, atol=1e-5)
    extractor.model.unfuse_qkv_projections()
    again = extractor(images[:1], names, ExtractionOptions(size=64))
    assert all(torch.equal(again[name], value) for name, value in separate.items())


def test_queries_are_the_first_third(fresh, images):
    extractor = FeatureExtractor(fresh("SD1.5"))
    extractor.model.fuse_qkv_projections()
    block = "mid_block.attentions.0.transformer_blocks.0.attn1.to_qkv"
    found = extractor(images[:1], ["mid-vit-block0-self-{q,k,v}", block], ExtractionOptions(size=64))
    whole = found[block]  # (1, N, 3 * C)
    parts = [found[f"mid-vit-block0-self-{letter}"].flatten(2).transpose(1, 2) for letter in "qkv"]
    assert torch.equal(torch.cat(parts, dim=2), whole)
    assert torch.equal(parts[0], whole[..., : whole.shape[2] // 3])
