# SPDX-License-Identifier: Apache-2.0
import numpy as np
import torch
from PIL import Image
from pixelsmith import Canvas
from pixelsmith.io.vae import TiledVAE
from pixelsmith.job.preview import PreviewWriter, fit_colours, render_canvas, shrink_canvas
from pixelsmith.store.rows import ArrayRows


def encoded(dummies, image):
    parts = [part for _, part in TiledVAE(dummies.Blocks()).encode(ArrayRows(image))]
    return Canvas(torch.cat(parts, dim=1))


def test_shrunk_canvases_hold_means_of_blocks():
    canvas = Canvas(torch.randn(2, 601, 47, generator=torch.Generator().manual_seed(0)))
    found = shrink_canvas(canvas, 130)
    assert found.shape == (2, 121, 10)
    torch.testing.assert_close(found[:, 3, 4], canvas.data[:, 15:20, 20:25].mean(dim=(1, 2)))
    torch.testing.assert_close(found[:, -1, -1], canvas.data[:, 600:, 45:].mean(dim=(1, 2)))
    assert torch.equal(shrink_canvas(canvas, 601), canvas.data)


def test_a_linear_autoencoder_is_found_exactly(dummies):
    """The map must serve other images than the one it was fitted to."""
    colours = fit_colours(encoded(dummies, dummies.scene((80, 96))), ArrayRows(dummies.scene((80, 96))))
    image = dummies.scene((60, 44), seed=3)[::-1].copy()
    means = image.astype(float).reshape(30, 2, 22, 2, 3).mean(axis=(1, 3))
    painted = render_canvas(encoded(dummies, image), colours).astype(float)
    assert np.abs(painted - means).max() < 4


def test_flat_images_and_small_sources_can_be_fitted(dummies):
    flat = np.full((16, 16, 3), 90, dtype=np.uint8)
    painted = render_canvas(encoded(dummies, flat), fit_colours(encoded(dummies, flat), ArrayRows(flat)))
    assert np.abs(painted.astype(int) - 90).max() <= 1
    large = encoded(dummies, dummies.scene((400, 500)))
    small = np.asarray(Image.fromarray(dummies.scene((400, 500))).resize((50, 40)))
    assert fit_colours(large, ArrayRows(small)).shape == (4, 3)


def test_previews_come_now_and_then(dummies, tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pixelsmith.job.preview.time.monotonic", lambda: now[0])
    file = tmp_path / "preview.png"
    writer = PreviewWriter(file, np.eye(4, 3), every=10)
    writer.show(Canvas.zeros(3, 5, 7))
    file.unlink()
    now[0] = 109
    writer.show(Canvas.zeros(3, 5, 7))
    assert list(tmp_path.iterdir()) == []
    now[0] = 110
    writer.show(Canvas.zeros(3, 900, 7))
    with Image.open(file) as image:
        assert image.size == (4, 450)
    assert list(tmp_path.iterdir()) == [file]
