# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image
from pixelsmith.io import lanczos
from pixelsmith.io.lanczos import Resized
from pixelsmith.store.rows import ArrayRows, bands, read_wrapped


def make_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def together(rows, strip):
    return np.concatenate([band for _, band in bands(rows, strip)]).astype(int)


def pillow(image, size):
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS)).astype(int)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((40, 56), (80, 112)),
        ((40, 56), (160, 61)),
        ((97, 31), (300, 500)),
        ((200, 150), (64, 90)),
        ((100, 20), (50, 41)),
        ((20, 100), (41, 50)),
        ((1, 1), (9, 7)),
        ((3, 500), (200, 3)),
        ((64, 64), (65, 63)),
        ((64, 64), (64, 64)),
    ],
    ids=str,
)
@pytest.mark.parametrize("strip", [1, 7, 256])
def test_strips_equal_the_whole(source, target, strip):
    image = make_image(*source)
    found = together(Resized(ArrayRows(image), target), strip)
    assert found.shape == (*target, 3)
    assert np.abs(found - pillow(image, target)).max() <= 1


def test_only_a_band_of_the_source_is_read():
    class Counting(ArrayRows):
        most = 0

        def read(self, top, bottom):
            self.most = max(self.most, bottom - top)
            return super().read(top, bottom)

    rows = Counting(make_image(1000, 8))
    together(Resized(rows, (4000, 32)), 64)
    assert rows.most <= 64 / 4 + 2 * 4 + 2


def test_smooth_images_are_shrunk_in_strips_alike(monkeypatch):
    monkeypatch.setattr(lanczos, "_WHOLE", 0)
    image = np.add.outer(np.arange(200), np.arange(120))[..., None].repeat(3, axis=2) // 2
    image = image.astype(np.uint8)
    found = together(Resized(ArrayRows(image), (70, 50)), 9)
    assert np.abs(found - pillow(image, (70, 50))).max() <= 1


def test_wrapped_images_have_no_edge():
    image = make_image(24, 20)
    whole = pillow(np.tile(image, (3, 3, 1)), (3 * 48, 3 * 50))
    wrapped = Resized(ArrayRows(image), (48, 50), wrap=(True, True))
    found = together(wrapped, 10)
    assert np.abs(found - whole[48:96, 50:100]).max() <= 1
    beyond = read_wrapped(wrapped, -5, 60).astype(int)
    assert np.abs(beyond - whole[43:108, 50:100]).max() <= 1
    plain = together(Resized(ArrayRows(image), (48, 50)), 10)
    assert np.abs(plain - whole[48:96, 50:100]).max() > 1


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="must be at least 1 x 1, got 0 x 4"):
        Resized(ArrayRows(make_image(2, 2)), (0, 4))
