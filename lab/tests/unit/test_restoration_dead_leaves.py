# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from recipes.restoration import dead_leaves
from recipes.restoration.dead_leaves import pool, render

# Mean RGB of the quarters of 64-pixel images; the pool of the shipped model came from this very algorithm.
GOLDEN = {
    0: [
        [158.02, 177.4, 180.54],
        [156.07, 166.61, 166.02],
        [113.69, 120.84, 117.71],
        [157.49, 169.89, 177.92],
    ],
    3: [
        [147.54, 147.47, 147.62],
        [134.64, 134.71, 134.56],
        [184.56, 183.36, 185.94],
        [160.21, 160.2, 160.23],
    ],
    9: [[86.12, 70.72, 74.85], [121.29, 78.03, 86.24], [65.59, 68.73, 73.08], [68.39, 56.49, 67.57]],
}


@pytest.mark.parametrize("seed", GOLDEN)
def test_the_algorithm_is_the_one_of_the_shipped_model(seed):
    quarters = render(64, seed).reshape(2, 32, 2, 32, 3).mean(axis=(1, 3)).reshape(4, 3)
    # libraries may round a pixel differently; another order of draws moves the means by tens of levels
    np.testing.assert_allclose(quarters, GOLDEN[seed], atol=0.3)


def test_an_image_depends_on_its_seed_only():
    first = render(48, 5)
    np.random.default_rng().random()
    assert np.array_equal(first, render(48, 5))
    assert not np.array_equal(first, render(48, 6))


@pytest.mark.parametrize("size", [16, 37, 64])
def test_images_are_8_bit_colour_of_any_size(size):
    image = render(size, 1)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_too_small_a_size_is_refused():
    with pytest.raises(ValueError, match="size must be at least 16 pixels, got 15"):
        render(15, 0)


def test_images_use_the_whole_range_and_are_never_blank():
    images = np.stack([render(32, seed) for seed in range(40)])
    assert images.min() <= 2
    assert images.max() >= 253
    assert images.std(axis=(1, 2, 3)).min() > 3


def test_leaves_cover_the_canvas():
    shares = []
    for seed in range(20):
        labels = dead_leaves._draw(np.random.default_rng(seed), 128, 2).labels
        shares.append((labels > 0).mean())
    assert min(shares) > 0.9


def test_a_leaf_is_drawn_over_those_before_it():
    leaves = dead_leaves._draw(np.random.default_rng(0), 128, 2)
    shown, area = np.unique(leaves.labels[leaves.labels > 0], return_counts=True)
    assert area[shown > leaves.count / 2].sum() > area[shown <= leaves.count / 2].sum()


def test_noise_has_the_spectrum_asked_for():
    side, beta = 128, 2.0
    fields = [dead_leaves._noise(np.random.default_rng(seed), side, beta) for seed in range(8)]
    power = np.mean([np.abs(np.fft.fft2(field)[0, 1 : side // 2]) ** 2 for field in fields], axis=0)
    slope = np.polyfit(np.log(np.arange(1, side // 2)), np.log(power), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.25)
    assert fields[0].std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pool_holds_image_i_of_seed_i_whatever_the_workers(tmp_path, workers):
    out = tmp_path / "runs" / "pool.npy"
    pool(output=out, count=12, size=24, workers=workers)
    images = np.load(out)
    assert images.shape == (12, 24, 24, 3)
    assert images.dtype == np.uint8
    assert all(np.array_equal(image, render(24, seed)) for seed, image in enumerate(images))
    assert [file.name for file in out.parent.iterdir()] == ["pool.npy"]


def test_a_killed_pool_goes_on_where_it_stopped(tmp_path, monkeypatch):
    out = tmp_path / "pool.npy"
    real, rendered = dead_leaves.render, []

    def killed_at_15(size, seed):
        if seed == 15:
            raise KeyboardInterrupt
        return real(size, seed)

    def counted(size, seed):
        rendered.append(seed)
        return real(size, seed)

    monkeypatch.setattr(dead_leaves, "render", killed_at_15)
    with pytest.raises(KeyboardInterrupt):
        pool(output=out, count=25, size=16, workers=1)
    assert not out.exists()
    monkeypatch.setattr(dead_leaves, "render", counted)
    pool(output=out, count=25, size=16, workers=1)
    assert rendered == list(range(10, 25))
    assert all(np.array_equal(image, real(16, seed)) for seed, image in enumerate(np.load(out)))


def test_a_broken_start_is_thrown_away(tmp_path):
    out = tmp_path / "pool.npy"
    (tmp_path / "pool.part.npy").write_bytes(b"killed inside the header")
    (tmp_path / "pool.done").write_text("0")
    pool(output=out, count=2, size=16, workers=1)
    assert np.array_equal(np.load(out)[1], render(16, 1))


def test_a_finished_pool_is_left_alone(tmp_path, capsys):
    out = tmp_path / "pool.npy"
    np.save(out, np.zeros((3, 16, 16, 3), np.uint8))
    pool(output=out, count=3, size=16, workers=1)
    assert not np.load(out).any()
    assert "is there already" in capsys.readouterr().err


def test_a_pool_of_another_shape_is_neither_kept_nor_replaced(tmp_path):
    out = tmp_path / "pool.npy"
    np.save(out, np.zeros((3, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"holds \(3, 16, 16, 3\), not \(4, 16, 16, 3\)"):
        pool(output=out, count=4, size=16, workers=1)
    assert np.load(out).shape == (3, 16, 16, 3)


def test_a_started_pool_of_another_shape_is_refused(tmp_path):
    np.save(tmp_path / "pool.part.npy", np.zeros((20, 16, 16, 3), np.uint8))
    (tmp_path / "pool.done").write_text("10")
    with pytest.raises(ValueError, match=r"part\.npy holds"):
        pool(output=tmp_path / "pool.npy", count=30, size=16, workers=1)
