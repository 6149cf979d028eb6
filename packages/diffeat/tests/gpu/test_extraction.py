# SPDX-License-Identifier: Apache-2.0
"""Extraction on each device, in each precision, against single precision on the CPU."""

import numpy as np
import pytest
import torch
from diffeat import ExtractionOptions, FeatureExtractor

NAMES = ["down-*-out", "up-level1-*-cross-q", "mid-vit-out", "up-level1-repeat0-vit-block0-self-map"]
OPTIONS = ExtractionOptions(timesteps=(50,), size=64)


@pytest.fixture(scope="module")
def image():
    rows, columns = np.mgrid[:64, :64] / 63
    return np.stack([rows, columns, rows * columns], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def yardstick(image):
    return FeatureExtractor.from_pretrained("tiny-sdxl", device="cpu")(image, NAMES, OPTIONS)


# bfloat16 keeps 8 bits of each number, float16 11
@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-3), ("float16", 0.02), ("bfloat16", 0.1)])
def test_each_precision_extracts_the_same_features(image, yardstick, device, dtype, allowed):
    extractor = FeatureExtractor.from_pretrained("tiny-sdxl", device=device, dtype=dtype)
    features = extractor(image, NAMES, OPTIONS)
    assert list(features) == list(yardstick)
    assert len(features) > len(NAMES)
    for name, wanted in yardstick.items():
        found = features[name].float().cpu()
        assert (found - wanted).norm() < allowed * wanted.norm(), name


def test_a_compiled_denoiser_gives_the_same_features(image, yardstick, device, compiler):
    torch.compiler.reset()
    extractor = FeatureExtractor.from_pretrained("tiny-sdxl", device=device, dtype="float32")
    extractor.pipeline.unet.compile(backend=compiler)
    features = extractor(image, NAMES, OPTIONS)
    for name, wanted in yardstick.items():
        assert (features[name].cpu() - wanted).norm() < 1e-3 * wanted.norm(), name


@pytest.mark.gpu
def test_an_attention_map_is_never_whole_in_memory():
    extractor = FeatureExtractor.from_pretrained("tiny-sdxl", device="cuda", dtype="float32")
    picture = np.zeros((512, 512, 3), np.float32)
    options = ExtractionOptions(timesteps=(50,), size=512)
    peaks = {}
    for name in ("up-level1-repeat1-out", "up-level1-repeat1-out", "up-level1-repeat1-vit-block0-self-map"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = extractor(picture, [name], options)
        torch.cuda.synchronize()
        peaks[name] = torch.cuda.max_memory_allocated() - before - found[name].nbytes
    plain, with_map = peaks.values()
    assert with_map < 2 * plain


@pytest.mark.gpu
def test_what_lies_behind_the_last_activation_takes_no_memory():
    extractor = FeatureExtractor.from_pretrained("tiny-sdxl", device="cuda", dtype="float32")
    picture = np.zeros((256, 256, 3), np.float32)
    held = torch.cuda.memory_allocated()
    extractor(picture, ["mid-vit-out"], ExtractionOptions(timesteps=(50,), size=256))
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == held
