# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from pixelsmith.pipelines.images import check_output_type, from_pixels


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
