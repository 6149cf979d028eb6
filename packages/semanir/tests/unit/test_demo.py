# SPDX-License-Identifier: Apache-2.0
import io
import json
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from common_kernels.runtime.images import read_image
from rich.console import Console
from semanir import SemanIR, SemanIRConfig
from semanir.cli.demo import _table
from semanir.demo import PHOTOGRAPHS, run_demo
from semanir.options import DemoOptions, PhotographName
from semanir.restorer import Restorer
from skimage.data import chelsea
from skimage.metrics import peak_signal_noise_ratio

FILES = ["baseline.png", "comparison.png", "noisy.png", "restored.png"]


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
def photograph(monkeypatch):
    rows, columns = np.mgrid[:40, :48]
    pixels = np.stack([rows * 5, columns * 5, np.full_like(rows, 120)], axis=-1).astype(np.uint8)
    monkeypatch.setitem(PHOTOGRAPHS, "small", lambda: pixels)
    return pixels


def test_images_and_figures_agree(restorer, photograph, tmp_path):
    calls = []
    out = tmp_path / "a" / "b"
    options = DemoOptions(photograph="small", seed=3)
    figures = run_demo(restorer, out, options, progress=lambda *pair: calls.append(pair))
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert calls == [(1, 1)]
    for name, psnr in (
        ("noisy", figures.psnr_noisy),
        ("baseline", figures.psnr_baseline),
        ("restored", figures.psnr),
    ):
        pixels = read_image(out / f"{name}.png").pixels
        assert pixels.shape == photograph.shape
        assert peak_signal_noise_ratio(photograph, pixels) == pytest.approx(psnr)
    assert 18 < figures.psnr_noisy < 24
    assert figures.psnr_baseline > figures.psnr_noisy
    assert figures.ssim_baseline > figures.ssim_noisy
    assert figures.seconds > 0
    assert figures.seconds_baseline > 0
    plain = json.loads(json.dumps(figures.to_dict()))
    assert plain["photograph"] == "small"
    assert plain["psnr"] == round(figures.psnr, 4)


def test_the_seed_decides_the_noise(restorer, photograph, tmp_path):
    first, again, other = (
        run_demo(restorer, tmp_path, DemoOptions(photograph="small", seed=seed)) for seed in (0, 0, 1)
    )
    assert first.psnr == again.psnr
    assert first.psnr_noisy != other.psnr_noisy


@pytest.mark.parametrize("options", [{"sigma": 0}, {"sigma": -1}, {"sigma": float("nan")}, {"seed": -1}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must"):
        DemoOptions(**options)


@pytest.mark.parametrize("name", get_args(PhotographName))
def test_photographs_come_with_the_package(name):
    pixels = PHOTOGRAPHS[name]()
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def test_without_scikit_image_there_is_no_baseline(restorer, monkeypatch, tmp_path):
    monkeypatch.setattr("semanir.evaluation.protocol.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "skimage", None)
    figures = run_demo(restorer, tmp_path, DemoOptions())
    assert sorted(p.name for p in tmp_path.iterdir()) == [name for name in FILES if name != "baseline.png"]
    assert figures.psnr_baseline is figures.ssim_baseline is figures.seconds_baseline is None
    with pytest.raises(ImportError, match=r'pip install "semanir\[baselines\]"'):
        run_demo(restorer, tmp_path, DemoOptions(photograph="coffee"))
    console = Console(record=True, file=io.StringIO())
    console.print(_table(figures))
    assert "non-local" not in console.export_text()


def test_the_photograph_inside_is_the_one_of_scikit_image():
    assert np.array_equal(PHOTOGRAPHS["chelsea"](), chelsea())
