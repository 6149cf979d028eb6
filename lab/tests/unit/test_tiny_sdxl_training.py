# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from recipes.tiny_sdxl import assembly, autoencoder, images
from recipes.tiny_sdxl.assembly import load_run
from recipes.tiny_sdxl.autoencoder import (
    AutoencoderOptions,
    autoencoder_loss,
    build_autoencoder,
    encode,
    linear_bound,
    normalise_latents,
    psnr,
    reconstruct,
    train_autoencoder,
)
from recipes.tiny_sdxl.denoiser import (
    RUN,
    Batches,
    Denoiser,
    DenoiserOptions,
    build_scheduler,
    train_denoiser,
    write_latents,
)
from recipes.tiny_sdxl.images import (
    check_pool,
    corner_of,
    fill_pool,
    held_out_images,
    load_pool,
    render_image,
    scene_of,
    time_ids_of,
)
from recipes.tiny_sdxl.progress import Plan, WeightedModule, mean_weights
from recipes.tiny_sdxl.words import build_tokenizers, captions_of, tokenize
from recipes.training import CHECKPOINT, fit
from shapeworld import render
from shapeworld.vocabulary import HELD_OUT
from torch import nn

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
KINDS = ("base", "zoom2", "zoom4", "large")
SMALL = DenoiserOptions(widths=(16, 32), depths=(1, 2), batch_size=4, window_steps=0, half=False)


@pytest.fixture(scope="module")
def small_pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "SHARD", 6)
        (folder / "pool").mkdir()
        for kind in KINDS:
            images._write_shard((folder / "pool", kind, 0))
    return folder


# images


def test_a_window_is_cut_from_the_larger_scene():
    whole = render(scene_of("zoom4", 3), 256).image
    top, left = corner_of("zoom4", 3)
    assert top % 4 == left % 4 == 0
    assert np.array_equal(render_image("zoom4", 3), whole[top : top + 64, left : left + 64])
    assert time_ids_of("zoom4", 3) == [256, 256, top, left, 256, 256]


def test_whole_scenes_carry_their_own_size():
    assert time_ids_of("base", 5) == [64, 64, 0, 0, 64, 64]
    assert time_ids_of("large", 5) == [128, 128, 0, 0, 128, 128]
    assert render_image("large", 0).shape == (128, 128, 3)


def test_training_never_shows_a_held_out_pair():
    pairs = {(t.colour, t.shape) for kind in KINDS for i in range(50) for t in scene_of(kind, i).things}
    assert not pairs & HELD_OUT


def test_pool_fills_what_is_missing_only(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(images, "Pool", lambda workers: _Serial())
    monkeypatch.setattr(images, "SHARD", 2)
    monkeypatch.setattr(images, "_write_shard", lambda task: written.append(task[1:]))
    np.save(tmp_path / "base-0000.npy", np.zeros(1))
    fill_pool(tmp_path, [("base", 3), ("zoom2", 2)], workers=1)
    assert written == [("base", 1), ("zoom2", 0)]


class _Serial:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    imap_unordered = staticmethod(map)


def test_a_pool_of_another_world_is_refused(small_pool, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "SHARD", 6)
    check_pool(small_pool / "pool", "base")
    np.save(tmp_path / "base-0000.npy", np.zeros((6, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="must show the world as it is now"):
        check_pool(tmp_path, "base")


def test_a_missing_pool_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold zoom2-"):
        load_pool(tmp_path, "zoom2")


# autoencoder


def test_linear_bound_of_an_exactly_low_dimensional_world():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 255, (20, 4, 4, 3)).astype(np.uint8)
    flat = corners.repeat(4, axis=1).repeat(4, axis=2)  # one colour per 4 x 4 block: three numbers are enough
    assert linear_bound(flat, flat, 3) > 200
    assert linear_bound(flat, flat, 2) < 40


def test_psnr_by_hand():
    ours = np.full((1, 2, 2, 3), 10, np.uint8)
    assert psnr(ours, ours + 10) == pytest.approx(20 * np.log10(25.5))


def test_normalising_latents_changes_no_image():
    torch.manual_seed(1)
    vae = build_autoencoder((8, 16, 16), 4).eval()
    images = held_out_images(8)
    before, latents = reconstruct(vae, images), encode(vae, images)
    normalise_latents(vae, images)
    after = encode(vae, images)
    assert np.abs(before.astype(int) - reconstruct(vae, images)).max() <= 1
    torch.testing.assert_close(after.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    assert not torch.allclose(latents, after, atol=1e-2)
    assert vae.config["scaling_factor"] == pytest.approx(1, abs=1e-2)


def test_the_posterior_starts_almost_certain():
    vae = build_autoencoder((8, 16, 16), 4)
    posterior = vae.encode(torch.rand(1, 3, 16, 16)).latent_dist
    torch.testing.assert_close(posterior.logvar, torch.full_like(posterior.logvar, -6.0))


def test_divergence_is_weighted_in():
    vae = build_autoencoder((8, 16, 16), 4)
    images, noise = torch.rand(2, 3, 16, 16), torch.zeros(2, 4, 4, 4)
    plain = autoencoder_loss(vae, images, noise, 0.0, half=False)
    heavy = autoencoder_loss(vae, images, noise, 2.0, half=False)
    moments = vae.encode(images).latent_dist
    expected = 0.5 * (moments.mean**2 + moments.var - 1 - moments.logvar)
    torch.testing.assert_close(heavy - plain, 2 * expected.mean())


def dying_at(step, monkeypatch, batches):
    """Make the drawing of a step fail, as if the run was killed there."""
    draw = batches.__call__

    def dying(self, number):
        if number == step:
            raise OSError("killed")
        return draw(self, number)

    monkeypatch.setattr(batches, "__call__", dying)


def test_autoencoder_resumed_equals_uninterrupted(small_pool, tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder, "held_out_images", lambda count: held_out_images(2))
    options = AutoencoderOptions(widths=(8, 8, 8), latent_channels=4, batch_size=2, half=False)
    plan = Plan(steps=6, decay_steps=3, save_every=2)

    def train(name):
        return train_autoencoder(tmp_path / name, small_pool / "pool", options, plan).state_dict()

    with monkeypatch.context() as patch:
        dying_at(5, patch, autoencoder.Crops)
        with pytest.raises(OSError, match="killed"):
            train("parts")
    assert torch.load(tmp_path / "parts" / CHECKPOINT, weights_only=True)["global_step"] == 4
    whole, parts, again = train("whole"), train("parts"), train("parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert all(torch.equal(whole[key], again[key]) for key in whole)  # nothing left to train


# U-Net


@pytest.fixture(scope="module")
def latent_run(small_pool):
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "SHARD", 6)
        patch.setattr("recipes.tiny_sdxl.denoiser.SHARD", 6)
        vae = build_autoencoder((8, 16, 16), 4)
        normalise_latents(vae, held_out_images(4))
        vae.save_pretrained(small_pool / "vae")
        write_latents(small_pool, small_pool / "pool", vae, KINDS)
    return small_pool


def test_latents_are_those_of_the_pool(latent_run):
    vae = AutoencoderKL.from_pretrained(latent_run / "vae").eval()
    stored = np.load(latent_run / "latents" / "large-0000.npy")
    wanted = encode(vae, np.load(latent_run / "pool" / "large-0000.npy")) * vae.config["scaling_factor"]
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored, wanted.numpy(), atol=5e-3)
    tokens = np.load(latent_run / "tokens" / "zoom2-0000.npy")
    assert np.array_equal(tokens[4], tokenize(build_tokenizers()[0], captions_of("zoom2", 4)))


def test_windows_come_at_the_end_only(latent_run):
    options = DenoiserOptions(batch_size=16, window_steps=5, large_every=5)
    batches = Batches(latent_run, options, steps=10)
    sizes = [set(batches(step).time_ids[:, 0].int().tolist()) for step in range(10)]
    assert sizes[:5] == [{64}] * 5
    assert sizes[9] == {128}
    assert batches(9).latents.shape == (4, 4, 32, 32)
    assert set().union(*sizes[5:9]) == {64, 128, 256}


def test_a_tenth_of_the_texts_is_dropped_half_of_it_to_zeros(latent_run):
    batches = Batches(latent_run, DenoiserOptions(batch_size=500, window_steps=0), steps=10)
    drop = torch.cat([batches(step).drop for step in range(6)])
    assert [(drop == kind).float().mean().item() for kind in (0, 1, 2)] == pytest.approx(
        [0.9, 0.05, 0.05], abs=0.015
    )


def test_a_batch_spreads_its_timesteps(latent_run):
    timesteps = Batches(latent_run, DenoiserOptions(batch_size=10, window_steps=0), steps=1)(0).timesteps
    assert sorted((timesteps // 100).tolist()) == list(range(10))


def test_error_is_zero_for_the_true_velocity(latent_run, monkeypatch):
    denoiser = Denoiser(SMALL, 4)
    batch = Batches(latent_run, SMALL, steps=1)(0)
    velocity = build_scheduler().get_velocity(batch.latents, batch.noise, batch.timesteps)
    monkeypatch.setattr(denoiser.unet, "forward", lambda *_, **__: type("Output", (), {"sample": velocity}))
    assert denoiser.errors(batch).abs().max() < 1e-9


def test_dropped_texts_do_not_count(latent_run):
    torch.manual_seed(3)
    denoiser = Denoiser(SMALL, 4).eval()
    batch = Batches(latent_run, SMALL, steps=1)(0)
    other = torch.roll(batch.tokens, 1, 0)
    for kind, equal in ((0, False), (1, True), (2, True)):
        batch.drop.fill_(kind)
        changed = type(batch)(batch.latents, other, batch.time_ids, batch.timesteps, batch.noise, batch.drop)
        with torch.no_grad():
            assert torch.equal(denoiser.errors(batch), denoiser.errors(changed)) is equal


def test_denoiser_resumed_equals_uninterrupted(latent_run, tmp_path, monkeypatch):
    plan = Plan(steps=4, decay_steps=2, save_every=2, warmup_steps=2)

    def train(name):
        (tmp_path / name).mkdir(exist_ok=True)
        for part in ("latents", "tokens"):
            if not (tmp_path / name / part).exists():
                (tmp_path / name / part).symlink_to(latent_run / part)
        return train_denoiser(tmp_path / name, 4, SMALL, plan).state_dict()

    with monkeypatch.context() as patch:
        dying_at(3, patch, Batches)
        with pytest.raises(OSError, match="killed"):
            train("parts")
    whole, parts = train("whole"), train("parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_run_loads_with_its_mean_weights(latent_run, tmp_path, monkeypatch):
    for part in ("latents", "tokens", "vae"):
        (tmp_path / part).symlink_to(latent_run / part)
    trained = train_denoiser(tmp_path, 4, SMALL, Plan(steps=3, decay_steps=1, save_every=2))
    stored = torch.load(tmp_path / RUN / CHECKPOINT, weights_only=True)
    monkeypatch.setattr(assembly, "DenoiserOptions", lambda: SMALL)
    loaded = load_run(tmp_path).unet.state_dict()
    for name, value in trained.unet.state_dict().items():
        assert torch.equal(loaded[name], value)
    last = stored["current_model_state"]["network.unet.conv_out.weight"]
    assert not torch.equal(last, loaded["conv_out.weight"])


# training


class Table(nn.Module):
    """Embeds numbers, and maps what it finds."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 4))
        self.target = torch.randn(5, 4)

    def loss(self, x):
        return nn.functional.mse_loss(self.layers(x), self.target)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_lowers_the_loss_of_the_mean(tmp_path, optimizer):
    torch.manual_seed(0)
    table, x = Table(), torch.arange(5)
    plan = Plan(steps=150, decay_steps=50, learning_rate=0.02, optimizer=optimizer, save_every=150)
    before = table.loss(x).item()
    module = WeightedModule(table, plan, table.loss)
    fit(module, lambda step: x, tmp_path, plan.run(), mean=mean_weights(plan.ema_decay))
    assert table.loss(x).item() < 0.2 * before


def test_the_mean_forgets_its_first_steps():
    means, weights = [torch.zeros(2)], [torch.ones(2)]
    average = mean_weights(0.5)._kwargs["multi_avg_fn"]
    average(means, weights, torch.tensor(1))
    torch.testing.assert_close(means[0], torch.full((2,), 1 - 2 / 11))
    average(means, [torch.zeros(2)], torch.tensor(1000))
    torch.testing.assert_close(means[0], torch.full((2,), (1 - 2 / 11) / 2))


def test_rate_rises_stays_and_falls():
    plan = Plan(steps=100, decay_steps=20, warmup_steps=10, learning_rate=1.0)
    assert [plan.rate(step) for step in (0, 9, 50, 80, 90, 99, 100)] == pytest.approx(
        [0.1, 1, 1, 1, 0.5, 0.05, 0]
    )
