# SPDX-License-Identifier: Apache-2.0
"""The main job on each device, in each precision, and compiled, against single precision on the CPU."""

import numpy as np
import pytest
import torch
from PIL import Image
from pixelsmith.pipelines import PixelsmithXLPipeline
from tiny_models import tiny_pipeline

SETTINGS = {"scale": 1.5, "slider": 1, "num_inference_steps": 2, "guidance_scale": 1.0, "seed": 1}


def enlarge(pipe):
    rows, columns = np.mgrid[:64, :64] * 4
    image = Image.fromarray(np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8))
    return pipe("a ball", image, output_type="np", **SETTINGS).images[0]


def load(device, dtype):
    pipe = PixelsmithXLPipeline(**tiny_pipeline("sdxl").components)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device, dtype)


@pytest.fixture(scope="module")
def yardstick():
    return enlarge(load("cpu", torch.float32))


# bfloat16 keeps 8 bits of each number, float16 11; values are 0 to 1
@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(torch.float32, 1e-3), (torch.float16, 0.02), (torch.bfloat16, 0.1)],
    ids=["float32", "float16", "bfloat16"],
)
def test_each_precision_enlarges_to_the_same_image(yardstick, device, dtype, allowed):
    found = enlarge(load(device, dtype))
    assert found.shape == (96, 96, 3)
    assert np.abs(found - yardstick).mean() < allowed


@pytest.mark.gpu  # tracing it takes seconds on the CPU
def test_a_compiled_denoiser_gives_the_same_image(yardstick):
    torch.compiler.reset()
    pipe = load("cuda", torch.float32)
    pipe.unet.compile()
    assert np.abs(enlarge(pipe) - yardstick).mean() < 1e-3
