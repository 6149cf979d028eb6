# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from semanir.metrics import psnr


def test_known_values():
    assert psnr(torch.zeros(3, 4), torch.full((3, 4), 0.1)).item() == pytest.approx(20, abs=1e-4)
    image = torch.tensor([0, 255], dtype=torch.uint8)
    assert psnr(image, torch.tensor([255, 0], dtype=torch.uint8), data_range=255).item() == 0


def test_equal_images_are_infinitely_close():
    assert math.isinf(psnr(torch.ones(2), torch.ones(2)))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.ones(2), torch.ones(3))
