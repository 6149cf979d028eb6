# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from semanir import SemanIR, SemanIRConfig
from semanir.demo import PHOTOS, run_demo
from semanir.images import read_picture
from semanir.restorer import Restorer
from skimage.metrics import peak_signal_noise_ratio

PICTURES = ["baseline.png", "comparison.png", "noisy.png", "restored.png"]


@pytest.fixture(scope="module")
def restorer():
    torch.manual_seed(0)
    config = SemanIRConfig.preset(
        "tiny",
        embed_dims=(8, 8),
        num_heads=(1, 1),
        depths=(1, 1, 1, 1),
        window_size=4,
        k=6,
        conv_blocks=(),
    )
    return Restorer(SemanIR(config))


@pytest.fixture
def photo(monkeypatch):
    rows, columns = np.mgrid[:40, :48]
    pixels = np.stack([rows * 5, columns * 5, np.full_like(rows, 120)], axis=-1).astype(np.uint8)
    monkeypatch.setitem(PHOTOS, "small", lambda: pixels)
    return pixels


def test_pictures_and_figures_agree(restorer, photo, tmp_path):
    calls = []
    out = tmp_path / "a" / "b"
    figures = run_demo(
        restorer, out, photo="small", sigma=25, seed=3, progress=lambda *pair: calls.append(pair)
    )
    assert sorted(p.name for p in out.iterdir()) == PICTURES
    assert calls == [(1, 1)]
    for name, psnr in (
        ("noisy", figures.psnr_noisy),
        ("baseline", figures.psnr_baseline),
        ("restored", figures.psnr),
    ):
        pixels = read_picture(out / f"{name}.png").pixels
        assert pixels.shape == photo.shape
        assert peak_signal_noise_ratio(photo, pixels) == pytest.approx(psnr)
    assert 18 < figures.psnr_noisy < 24
    assert figures.psnr_baseline > figures.psnr_noisy
    assert figures.ssim_baseline > figures.ssim_noisy
    assert figures.seconds > 0
    assert figures.seconds_baseline > 0
    plain = json.loads(json.dumps(figures.to_dict()))
    assert plain["photo"] == "small"
    assert plain["psnr"] == round(figures.psnr, 4)


def test_the_seed_decides_the_noise(restorer, photo, tmp_path):
    first, again, other = (
        run_demo(restorer, tmp_path, photo="small", sigma=25, seed=seed) for seed in (0, 0, 1)
    )
    assert first.psnr == again.psnr
    assert first.psnr_noisy != other.psnr_noisy


@pytest.mark.parametrize("sigma", [0, -1, float("nan")])
def test_no_noise_is_no_demonstration(restorer, photo, tmp_path, sigma):
    with pytest.raises(ValueError, match="sigma must be positive"):
        run_demo(restorer, tmp_path, photo="small", sigma=sigma, seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(PHOTOS))
def test_photos_come_with_the_package(name):
    pixels = PHOTOS[name]()
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
