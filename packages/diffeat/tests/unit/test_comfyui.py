# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from common_kernels.runtime.comfyui_host import Interrupted, StandIn, run_node
from diffeat import ExtractionOptions
from diffeat.comfyui import DiffeatLoad, DiffeatView
from diffeat.pictures import draw_values

NAME = "up-level1-repeat0-vit-out"


@pytest.fixture(scope="module")
def extractor():
    with StandIn().installed() as host:
        (found,) = run_node(DiffeatLoad)
    assert host.freed == 1, "ComfyUI's own models make way"
    return found


@pytest.fixture
def images():
    return torch.rand(2, 40, 56, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["pca", "clusters", "similarity"])
def test_drawings_are_those_of_the_features(extractor, images, kind):
    with StandIn().installed() as host:
        (shown,) = run_node(
            DiffeatView, extractor=extractor, image=images, kind=kind, timestep=100, x=0.2, size=64
        )
    assert host.steps[-1] == (2, 2)
    assert shown.shape == images.shape
    pixels = list((images * 255).round().to(torch.uint8).numpy())
    features = extractor(pixels, NAME, ExtractionOptions(timesteps=(100,), size=64), batch_size=1)
    drawings, _ = draw_values(kind, list(features[NAME]), point=(0.2, 0.5))
    expected = [np.asarray(each.convert("RGB").resize((56, 40), 0)) / 255 for each in drawings]
    np.testing.assert_allclose(shown.numpy(), np.stack(expected), atol=1e-6)


def test_a_user_who_cancels_ends_it(extractor, images):
    with StandIn(interrupt_at=1).installed(), pytest.raises(Interrupted):
        run_node(DiffeatView, extractor=extractor, image=images, size=64)
