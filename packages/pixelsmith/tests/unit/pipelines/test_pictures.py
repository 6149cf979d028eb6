# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image
from pixelsmith.pipelines.pictures import check_output_type, from_pixels, to_pixels
from pixelsmith.pipelines.sizes import plan_stages


def test_pictures_of_any_mode():
    assert to_pixels(Image.new("L", (3, 2), 7)).tolist() == [[[7] * 3] * 3] * 2
    clear = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    assert to_pixels(clear).tolist() == [[[255, 255, 255]]]
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert (to_pixels(pixels) == pixels).all()


def test_pictures_are_turned_upright():
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    image.getexif()[0x0112] = 6
    assert to_pixels(image).shape == (3, 2, 3)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("cat.png", TypeError, "image must be one Pillow image or .* array, got str"),
        ([Image.new("RGB", (2, 2))], TypeError, "got list"),
        (np.zeros((4, 4), dtype=np.uint8), ValueError, r"\(H, W, 3\) uint8, got \(4, 4\) uint8"),
        (np.zeros((4, 4, 3)), ValueError, r"got \(4, 4, 3\) float64"),
        (np.zeros((0, 4, 3), dtype=np.uint8), ValueError, r"got \(0, 4, 3\) uint8"),
        (Image.new("F", (2, 2)), ValueError, "holds floating point numbers"),
    ],
)
def test_what_is_no_picture(image, error, message):
    with pytest.raises(error, match=message):
        to_pixels(image)


def test_forms_of_the_result():
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    (image,) = from_pixels(pixels, "pil")
    assert (np.asarray(image) == pixels).all()
    array, tensor = from_pixels(pixels, "np"), from_pixels(pixels, "pt")
    assert (array.shape, array.dtype) == ((1, 2, 3, 3), np.float32)
    assert np.array_equal((array[0] * 255).round(), pixels)
    assert (tensor.shape, tensor.dtype) == ((1, 3, 2, 3), torch.float32)
    assert np.array_equal(tensor[0].permute(1, 2, 0), array[0])
    with pytest.raises(ValueError, match="output_type must be one of pil, np, pt, latent, got 'jpg'"):
        check_output_type("jpg")


def test_stages_enlarge_alike():
    stages = plan_stages((100, 200), (800, 1600), 8, 3)
    assert [stage.size for stage in stages] == [(200, 400), (400, 800), (800, 1600)]
    assert [round(stage.scale, 6) for stage in stages] == [2, 4, 8]


def test_stages_may_change_the_aspect():
    stages = plan_stages((64, 64), (64, 256), 8, 2)
    assert [stage.size for stage in stages] == [(64, 128), (64, 256)]
    assert stages[1].scale == 2


def test_stages_on_the_way_are_rounded_the_last_is_not():
    assert [stage.size for stage in plan_stages((64, 64), (204, 204), 8, 2)] == [(112, 112), (204, 204)]
    with pytest.raises(ValueError, match="stages must be at least 1, got 0"):
        plan_stages((1, 1), (2, 2), 8, 0)
