# SPDX-License-Identifier: Apache-2.0

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from recipes.cards import folder_size
from recipes.tiny_sdxl import decoder
from recipes.tiny_sdxl.assembly import save_autoencoder
from recipes.tiny_sdxl.autoencoder import build_autoencoder, to_signal
from recipes.tiny_sdxl.commands import ASSETS
from recipes.tiny_sdxl.decoder import (
    Repainting,
    Views,
    calm_error,
    decoder_loss,
    local_variance,
    train_decoder,
)
from recipes.tiny_sdxl.images import held_out_images
from recipes.tiny_sdxl.progress import Plan

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
LEAVES = np.random.default_rng(0).integers(0, 256, (2, 136, 136, 3), dtype=np.uint8)


class Stub:
    """A pipeline whose U-Net finds the velocity of latents that it knows."""

    def __init__(self, clean=None):
        torch.manual_seed(0)
        self.vae = build_autoencoder((8, 8, 8), 4)
        self.scheduler = DDIMScheduler(prediction_type="v_prediction")
        self.clean, self.sizes = clean, None

    def encode_prompt(self, prompt, do_classifier_free_guidance):
        return torch.zeros(1, 5, 7), None, torch.zeros(1, 3), None

    def unet(self, noisy, timestep, prompts, added_cond_kwargs):
        assert noisy.shape[-2:] == (16, 16)
        assert len(prompts) == len(added_cond_kwargs["text_embeds"]) == len(noisy)
        self.sizes = added_cond_kwargs["time_ids"]
        if self.clean is None:
            return SimpleNamespace(sample=torch.zeros_like(noisy))
        kept = self.scheduler.alphas_cumprod[timestep]
        noise = (noisy - kept.sqrt() * self.clean) / (1 - kept).sqrt()
        return SimpleNamespace(sample=kept.sqrt() * noise - (1 - kept).sqrt() * self.clean)


def test_repainting_with_a_perfect_network_changes_nothing():
    # all patches alike, as the network knows one
    patch = torch.randn(1, 4, 16, 16)
    latents = patch.repeat(2, 1, 3, 2)
    pipeline = Stub(patch)
    found = [Repainting(pipeline, 3)(latents, step) for step in range(8)]
    assert all(torch.allclose(each, latents, atol=1e-4) for each in found)
    assert pipeline.sizes.tolist() == [[192, 128, 0, 0, 192, 128]] * 12


def test_repainting_keeps_places_and_leaves_some_steps_as_they_are():
    latents = torch.randn(2, 4, 32, 48)
    repainting = Repainting(Stub(), 3)
    found = [repainting(latents, step) for step in range(12)]
    untouched = [torch.equal(each, latents) for each in found]
    assert any(untouched)
    assert not all(untouched)
    # without any velocity the latents come back, smaller, with noise at most of the last timestep but two
    for each in found:
        assert torch.corrcoef(torch.stack([each.flatten(), latents.flatten()]))[0, 1] > 0.8
    assert torch.equal(found[5], repainting(latents, 5))


def test_a_batch_depends_on_seed_and_step_only():
    first, second = (Views(LEAVES, 1) for _ in range(2))
    assert torch.equal(first(3)[0], second(3)[0])
    assert not torch.equal(first(3)[0], second(4)[0])
    batches = [first(step) for step in range(30)]
    shapes = {tuple(images.shape) for images, _ in batches}
    assert shapes == {(count, 3, side, side) for side, count in decoder.BATCHES.items()}
    assert all(images.abs().max() <= 1 for images, _ in batches)
    assert [step for _, step in batches] == list(range(30))


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
    vae, flat = Stub().vae, torch.zeros(1, 3, 64, 64)
    busy = torch.rand(1, 3, 64, 64) * 2 - 1
    off = {}
    for name, image in (("calm", flat), ("busy", busy)):
        wrong = image + 0.01
        monkeypatch.setattr(vae, "decode", lambda z, wrong=wrong: type("Out", (), {"sample": wrong}))
        off[name] = decoder_loss(vae, image, lambda latents: latents).item()
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
        pipeline = Stub()
        train_decoder(tmp_path / name, tmp_path / "leaves.npy", pipeline, plan, 0)
        return pipeline.vae.state_dict()

    def dying(self, step):
        if step == 3:
            raise OSError("killed")
        return draw(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Views, "__call__", dying)
        with pytest.raises(OSError, match="killed"):
            train("parts")
    before, whole, parts = Stub().vae.state_dict(), train("whole"), train("parts")
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
