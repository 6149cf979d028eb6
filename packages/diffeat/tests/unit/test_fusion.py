# SPDX-License-Identifier: Apache-2.0
"""Features of several models as one."""

import pytest
import torch
from diffeat import ExtractionOptions, FeatureExtractor, presets
from diffeat.fusion import Tower, drop_channels, extract_parts, fuse, massive_channels
from diffeat.presets import Preset, Selection
from torch.nn import functional as F


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cosines_of_a_fusion_are_weighted_means_of_the_parts() -> None:
    parts = [1000 * noise(2, 5, 4, 6), noise(2, 7, 4, 6, seed=1)]
    fused = fuse(parts, (0.25, 0.75)).double()
    assert fused.shape == (2, 12, 4, 6)
    wanted = [F.cosine_similarity(p[0].flatten(1), p[1].flatten(1), dim=0).double() for p in parts]
    found = F.cosine_similarity(fused[0].flatten(1), fused[1].flatten(1), dim=0)
    shares = torch.tensor([0.25, 0.75], dtype=torch.float64) ** 2
    torch.testing.assert_close(found, (shares[0] * wanted[0] + shares[1] * wanted[1]) / shares.sum())


def test_the_largest_grid_and_the_side_of_a_fusion() -> None:
    parts = [noise(1, 2, 4, 8), noise(1, 3, 2, 4)]
    assert fuse(parts).shape == (1, 5, 4, 8)
    assert fuse(parts, side=16).shape == (1, 5, 16, 32)
    with pytest.raises(ValueError, match="each part must have one weight, got 1 for 2 parts"):
        fuse(parts, (1.0,))
    with pytest.raises(ValueError, match="of the same images, got"):
        fuse([noise(1, 2, 4, 4), noise(2, 2, 4, 4)])


def test_massive_channels_are_found_and_dropped() -> None:
    values = noise(2, 16, 4, 4)
    values[:, [3, 11]] += 300.0
    channels = massive_channels(values)
    assert channels.tolist() == [3, 11]
    dropped = drop_channels(values, channels)
    assert not dropped[:, [3, 11]].any()
    kept = [channel for channel in range(16) if channel not in {3, 11}]
    assert torch.equal(dropped[:, kept], values[:, kept])
    assert not len(massive_channels(noise(2, 16, 4, 4)))


def test_a_preset_over_several_models(pipelines, images, monkeypatch) -> None:
    parts = (Selection("SD1.5", ("mid-vit-out",)), Selection("SDXL", ("up-level0-repeat0-vit-out",)))
    monkeypatch.setitem(presets.PRESETS, "both", Preset("both", parts, "a test"))
    extractors = {name: FeatureExtractor(pipelines(name)) for name in ("SD1.5", "SDXL")}
    options = {name: ExtractionOptions(size=64, seed=number) for number, name in enumerate(extractors)}
    found = extract_parts("both", extractors, images, options)
    assert {name: list(value) for name, value in found.items()} == {p.model: list(p.names) for p in parts}
    assert [value.meta.options.seed for value in found.values()] == [0, 1]
    fused = fuse([value.concat() for value in found.values()])
    assert fused.shape[1] == sum(value.concat().shape[1] for value in found.values())
    with pytest.raises(LookupError, match=r"needs a model for SDXL, got SD1\.5"):
        extract_parts("both", {"SD1.5": extractors["SD1.5"]}, images)


def test_a_tower_gives_the_tokens_of_its_block(images) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, depth=2)
    tower = Tower(model)
    found = tower(images, side=3)
    assert found.shape == (2, 192, 3, 3)
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    resized = F.interpolate(images[:1], (48, 48), mode="bilinear", antialias=True).clamp(0, 1)
    with torch.no_grad():
        tokens = model.forward_features((resized - mean) / std)[:, 1:]
    torch.testing.assert_close(found[0].flatten(1).T, tokens[0], rtol=1e-4, atol=1e-5)


def test_towers_that_cannot_be(tmp_path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(TypeError, match="forward_intermediates, got Linear"):
        Tower(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="timm has no model"):
        Tower.from_pretrained("vit_of_nobody")
    with pytest.raises(ValueError, match=r"must be a \.safetensors file"):
        Tower.from_pretrained("vit_tiny_patch16_224", checkpoint=tmp_path / "x.pth")
