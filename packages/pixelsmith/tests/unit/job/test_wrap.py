# SPDX-License-Identifier: Apache-2.0
"""Sides that join, with a network that was trained on images with borders."""

import numpy as np
import pytest
from PIL import Image
from pixelsmith import JobConfig, SizeConfig, load_model
from pixelsmith.job import Job, MemoryStore, plan_job


@pytest.mark.parametrize("wrap", ["none", "horizontal", "both"])
def test_an_enlarged_image_keeps_its_colours(wrap):
    """Every step guided: what remains is the autoencoder, and the last step."""
    rows, columns = np.mgrid[:48, :64] * 2 * np.pi / np.array([48, 64])[:, None, None]
    waves = np.stack([np.sin(rows), np.cos(columns), np.sin(rows) * np.cos(columns)], axis=-1)
    image = (127 + 50 * waves).astype(np.uint8)
    model = load_model("tiny-sdxl", num_inference_steps=3, guidance_scale=1.0, device="cpu")
    config = JobConfig(
        patch=model.patch, patch_multiple=model.patch_multiple, slider=1.0, wrap=wrap, batch_size=4
    )
    spec = plan_job(model, config, SizeConfig(scale=2.0), image_size=(48, 64))
    found = Job(model, spec, MemoryStore(), image=image).run().image.array.astype(int)
    expected = np.asarray(Image.fromarray(image).resize((128, 96), Image.Resampling.LANCZOS))
    assert np.abs(found - expected).mean() < 12
    if wrap != "none":  # the step across the join is one like any other
        steps = np.abs(np.diff(found, axis=1)).mean(axis=(0, 2))
        assert np.abs(found[:, 0] - found[:, -1]).mean() < 2 * np.quantile(steps, 0.9)
