# SPDX-License-Identifier: Apache-2.0

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from recipes.cards import folder_size
from recipes.tiny_sdxl import decoder
from recipes.tiny_sdxl.assembly import save_autoencoder
from recipes.tiny_sdxl.autoencoder import build_autoencoder, to_signal
from recipes.tiny_sdxl.commands import ASSETS
from recipes.tiny_sdxl.decoder import Views, calm_error, decoder_loss, local_variance, train_decoder
from recipes.tiny_sdxl.images import held_out_images
from recipes.tiny_sdxl.progress import Plan

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
LEAVES = np.random.default_rng(0).integers(0, 256, (2, 136, 136, 3), dtype=np.uint8)


def small():
    torch.manual_seed(0)
    return build_autoencoder((8, 8, 8), 4)


def test_a_batch_depends_on_seed_and_step_only():
    first, second = (Views(LEAVES, 1) for _ in range(2))
    assert torch.equal(first(3), second(3))
    assert not torch.equal(first(3), second(4))
    shapes = {tuple(first(step).shape) for step in range(30)}
    assert shapes == {(count, 3, side, side) for side, count in decoder.BATCHES.items()}
    assert all(first(step).abs().max() <= 1 for step in range(5))


def test_shares_add_up_and_every_view_is_large_enough():
    views, rng = Views(LEAVES, 0), np.random.default_rng(0)
    assert sum(decoder.SIDES) == pytest.approx(1)
    for side, shares in decoder.VIEWS.items():
        assert sum(shares.values()) == pytest.approx(1)
        for view in shares:
            assert views._window(view, side, rng).shape == (side, side, 3)


def test_an_enlarged_window_is_smooth(monkeypatch):
    views, rng = Views(LEAVES, 0), np.random.default_rng(2)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    monkeypatch.setattr(decoder, "render", lambda scene, side: SimpleNamespace(image=noise))
    window = views._window("enlarged4", 64, rng).astype(int)
    assert abs(np.diff(window, axis=0)).mean() < 0.5 * abs(np.diff(noise.astype(int), axis=0)).mean()


def test_the_variance_is_that_of_the_window():
    x = torch.rand(1, 3, 20, 20, dtype=torch.float64)
    part = x[0, :, 4:13, 6:15].flatten(1)
    wanted = part.var(dim=1, correction=0).mean()
    assert local_variance(x)[0, 0, 8, 10] == pytest.approx(wanted.item())


def test_an_error_on_calm_ground_weighs_more(monkeypatch):
    vae, flat = small(), torch.zeros(1, 3, 64, 64)
    busy = torch.rand(1, 3, 64, 64) * 2 - 1
    off = {}
    for name, image in (("calm", flat), ("busy", busy)):
        wrong = image + 0.01
        monkeypatch.setattr(vae, "decode", lambda z, wrong=wrong: type("Out", (), {"sample": wrong}))
        off[name] = decoder_loss(vae, image).item()
    assert off["busy"] == pytest.approx(1e-4, rel=0.1)
    assert off["calm"] == pytest.approx((1 + decoder.CALM_WEIGHT) * 1e-4, rel=1e-3)


def test_the_calm_error_does_not_look_at_edges():
    wanted = np.full((1, 64, 64, 3), 100, dtype=np.uint8)
    wanted[:, :, 40:] = np.random.default_rng(0).integers(0, 256, (1, 64, 24, 3))
    ours = wanted.copy()
    ours[:, :, 50:] = 0
    assert calm_error(ours, wanted) == 0
    ours[:, :, :30] += 3
    calm = local_variance(to_signal(wanted)) < (decoder.CALM / 127.5) ** 2
    share = calm[..., :30].sum() / calm.sum()
    assert calm_error(ours, wanted) == pytest.approx(3 * share.sqrt().item(), rel=1e-4)


def test_the_encoder_stays_and_a_killed_run_resumes(tmp_path, monkeypatch):
    np.save(tmp_path / "leaves.npy", LEAVES)
    monkeypatch.setattr(decoder, "BATCHES", {64: 1, 128: 1, 256: 1})
    monkeypatch.setattr(decoder, "held_out_images", lambda count: held_out_images(2))
    plan, draw = Plan(steps=4, decay_steps=2, save_every=2), Views.__call__

    def train(name):
        vae = small()
        train_decoder(tmp_path / name, tmp_path / "leaves.npy", vae, plan, 0)
        return vae.state_dict()

    def dying(self, step):
        if step == 3:
            raise OSError("killed")
        return draw(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Views, "__call__", dying)
        with pytest.raises(OSError, match="killed"):
            train("parts")
    before, whole, parts = small().state_dict(), train("whole"), train("parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    kept = [key for key in whole if key.startswith(("encoder", "quant_conv"))]
    assert all(torch.equal(whole[key], before[key]) for key in kept)
    assert not torch.equal(whole["decoder.conv_out.weight"], before["decoder.conv_out.weight"])


def test_a_run_of_the_decoder_alone_replaces_the_autoencoder_only(tmp_path):
    folder, run = tmp_path / "pipeline", tmp_path / "run"
    shutil.copytree(ASSETS, folder)
    vae = AutoencoderKL.from_pretrained(ASSETS / "vae")
    with torch.no_grad():
        vae.decoder.conv_out.bias += 0.5
    vae.save_pretrained(run / "vae")
    assert save_autoencoder(run / "vae", folder) == folder_size(folder)
    loaded = AutoencoderKL.from_pretrained(folder / "vae")
    assert torch.equal(loaded.decoder.conv_out.bias, vae.decoder.conv_out.bias.half().float())
    files = [file.relative_to(ASSETS) for file in ASSETS.rglob("*") if file.is_file()]
    changed = [each for each in files if (ASSETS / each).read_bytes() != (folder / each).read_bytes()]
    assert [each.as_posix() for each in changed] == ["vae/diffusion_pytorch_model.safetensors"]
