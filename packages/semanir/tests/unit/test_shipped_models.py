# SPDX-License-Identifier: Apache-2.0
"""Every model inside the package does what its card says, better than a rule that learnt nothing."""

import json

import numpy as np
import pytest
import torch
from semanir import SemanIR
from semanir.cards import ModelCard
from semanir.degradations import (
    JPEG,
    BayerMosaic,
    BicubicDownscale,
    CameraNoise,
    Chain,
    CorrelatedNoise,
    GaussianNoise,
    MotionBlur,
    resize_bicubic,
)
from semanir.weights import SHIPPED
from skimage import data
from skimage.restoration import denoise_tv_chambolle
from torch.nn import functional as F

CAMERA = Chain([CameraNoise(shot=0.01, read=4, mosaicked=True), JPEG(quality=90)])
# model: what it undoes; the input itself is the rule to beat, and for noise total variation told the noise
CASES = {
    "tiny-denoise": (
        GaussianNoise(sigma=25),
        Chain([GaussianNoise(sigma=25), JPEG(quality=98)]),
        CAMERA,
        CorrelatedNoise(sigma=25, radius=0.8),
    ),
    "tiny-jpeg": (JPEG(quality=10), JPEG(quality=40, subsampling="4:4:4")),
    "tiny-demosaic": (BayerMosaic(),),
    "tiny-sr-x2": (BicubicDownscale(scale=2),),
    "tiny-all": (Chain([GaussianNoise(sigma=25), JPEG(quality=98)]), JPEG(quality=40), MotionBlur(length=7)),
}
CHOSEN = [(name, step) for name in SHIPPED.names() for step in CASES[name]]


def psnr(image, truth):
    return float(-10 * torch.log10(F.mse_loss(image.clamp(0, 1), truth)))


def total_variation(image, truth):
    """Remove noise by total variation that is told how strong it is."""
    pixels = image[0].permute(1, 2, 0).numpy()
    found = denoise_tv_chambolle(pixels, weight=1.1 * float((image - truth).std()), channel_axis=-1)
    return torch.from_numpy(np.asarray(found, dtype=np.float32)).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("name", "step"), CHOSEN, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CHOSEN)])
def test_a_shipped_model_beats_the_rule_that_learnt_nothing(name, step):
    truth = torch.from_numpy(data.astronaut()[32:160, 160:288]).permute(2, 0, 1)[None].float() / 255
    degraded = step(truth, torch.Generator().manual_seed(3))
    model = SemanIR.from_pretrained(name, device="cpu", dtype="float32")
    with torch.inference_mode():
        restored = model(degraded)
    rules = [resize_bicubic(degraded, model.config.upscale) if model.config.upscale > 1 else degraded]
    if name == "tiny-denoise":
        rules.append(total_variation(degraded, truth))
    assert psnr(restored, truth) > max(psnr(rule, truth) for rule in rules) + 0.2


@pytest.mark.parametrize("name", SHIPPED.names())
def test_a_shipped_model_is_small_and_has_its_card(name):
    folder = SHIPPED.folder(name)
    assert (folder / "model.safetensors").stat().st_size <= 2.5e6
    card = ModelCard.from_dict(json.loads((folder / "card.json").read_text("utf-8")))
    model = SemanIR.from_pretrained(name, device="cpu")
    assert card.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert card.license == "Apache-2.0"
    assert card.task
    assert card.statement
    assert card.figures
