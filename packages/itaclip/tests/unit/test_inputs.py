# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from common_kernels.runtime.images import read_rgb
from itaclip.inputs import CLIP_MEAN, Normalizer, shrink, to_list, to_tensor
from PIL import Image

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS).convert("RGBA"),
        PIXELS,
        np.dstack([PIXELS, np.full((2, 4, 1), 255, np.uint8)]),
        PIXELS.astype(np.uint16) * 257,
        PIXELS / 255,
        PIXELS[::-1][::-1],
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1) / 255,
    ],
    ids=["pil", "pil alpha", "uint8", "alpha", "uint16", "float", "strided", "tensor", "float tensor"],
)
def test_kinds_agree(image):
    found = to_tensor(image)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.from_numpy(PIXELS).permute(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS[..., 0]),
        PIXELS[..., 0],
        PIXELS[..., :1],
        torch.from_numpy(PIXELS[..., 0])[None],
        Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257),
        Image.fromarray((PIXELS[..., 0] / 255).astype(np.float32)),
    ],
    ids=["pil", "array", "array with channel", "tensor", "pil 16 bit", "pil float"],
)
def test_grey_is_three_equal_channels(image):
    expected = torch.from_numpy(PIXELS[..., 0]) / 255
    assert torch.allclose(to_tensor(image), expected.expand(3, -1, -1), atol=1e-6)


@pytest.mark.parametrize(
    ("image", "error", "rule"),
    [
        (np.zeros((2, 2, 5), np.uint8), ValueError, "array must be"),
        (np.zeros((2, 2, 3), np.int32), TypeError, "uint8, uint16 or floating, got int32"),
        (torch.zeros(5, 2, 2), ValueError, "must be"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), TypeError, "floating, got int64"),
        (np.zeros((0, 2, 3), np.uint8), ValueError, "must have pixels"),
        (torch.zeros(3, 0, 2), ValueError, "must have pixels"),
        (torch.full((3, 2, 2), torch.nan), ValueError, "finite"),
        (3, TypeError, "got int"),
    ],
    ids=str,
)
def test_what_is_no_image(image, error, rule):
    with pytest.raises(error, match=rule):
        to_tensor(image)


@pytest.mark.parametrize("kind", ["turned", "transparent"])
def test_an_image_in_memory_is_what_its_file_shows(tmp_path, kind):
    image, exif = Image.fromarray(PIXELS), Image.Exif()
    if kind == "turned":
        exif[0x0112] = 6  # shown after a quarter turn
    else:
        image.putalpha(Image.fromarray(PIXELS[..., 0]))  # over white, as browsers show it
    image.save(tmp_path / "image.png", exif=exif)
    expected = torch.from_numpy(np.array(read_rgb(tmp_path / "image.png"))).permute(2, 0, 1) / 255
    with Image.open(tmp_path / "image.png") as opened:
        assert torch.equal(to_tensor(opened), expected)


def test_one_or_several():
    assert to_list(PIXELS)[1]
    assert to_list(Image.fromarray(PIXELS))[1]
    images, single = to_list(np.stack([PIXELS, PIXELS]))
    assert not single
    assert len(images) == 2
    assert to_list([PIXELS]) == ([PIXELS], False)
    with pytest.raises(TypeError, match="images must be"):
        to_list("folder")
    with pytest.raises(TypeError, match="images must be"):
        to_list(3)


def test_normalising_takes_what_the_model_states(tools):
    model = tools.native()
    usual = Normalizer(model)
    assert usual.mean.flatten().tolist() == pytest.approx(CLIP_MEAN)
    model.visual.preprocess_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.125)}
    try:
        own = Normalizer(model)
    finally:
        del model.visual.preprocess_cfg
    found = own(torch.full((3, 4, 4), 0.6), (2, 3), torch.device("cpu"))
    assert found.shape == (3, 2, 3)
    assert torch.allclose(found[:, 0, 0], torch.tensor([0.2, 0.8, 2.4]), atol=1e-6)


def test_shrink_keeps_the_ratio_and_never_enlarges():
    image = Image.new("RGB", (400, 100))
    assert shrink(image, 200).size == (200, 50)
    assert shrink(image, 400) is image
    assert shrink(image, 0) is image
    assert shrink(Image.new("RGB", (1, 900)), 100).size == (1, 100)
