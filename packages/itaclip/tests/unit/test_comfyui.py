# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from common_kernels.runtime.comfyui_host import Interrupted, StandIn, run_node
from itaclip import ITACLIP
from itaclip.comfyui import ItaclipLoad, ItaclipSegment
from itaclip.demo import DemoScenes


@pytest.fixture(scope="module")
def scene():
    return torch.from_numpy(np.array(DemoScenes.load().images[0]))[None, :64, :64].float() / 255


@pytest.fixture(scope="module")
def segmenter():
    with StandIn().installed() as host:
        (found,) = run_node(ItaclipLoad)
    assert host.freed == 1, "ComfyUI's own models make way"
    return found


def test_masks_are_those_of_predict(segmenter, scene):
    batch = torch.cat([scene, scene.flip(2)])
    given = {"classes": "red, blue", "background": "waves, tiles"}
    with StandIn().installed() as host:
        mask, overlay = run_node(ItaclipSegment, segmenter=segmenter, image=batch, **given)
        (red, _) = run_node(ItaclipSegment, segmenter=segmenter, image=batch, mask_of="red", **given)
    assert host.steps[-1] == (2, 2)
    alone = ITACLIP.from_pretrained("tiny-shapes", device="cpu")
    alone.set_classes(["red", "blue"], background=["waves", "tiles"])
    results = alone.predict(list((batch * 255).round().to(torch.uint8).numpy()))
    for number, result in enumerate(results):
        assert torch.equal(mask[number], (result.labels > 0).float())
        assert torch.equal(red[number], (result.labels == result.names.index("red")).float())
    assert overlay.shape == batch.shape
    assert not torch.equal(overlay, batch)


def test_mistakes_and_users_who_cancel(segmenter, scene):
    given = {"segmenter": segmenter, "image": scene, "classes": "red, blue"}
    with pytest.raises(ValueError, match="mask_of must be one of red, blue, got 'green'"):
        run_node(ItaclipSegment, mask_of="green", **given)
    with StandIn(interrupt_at=1).installed(), pytest.raises(Interrupted):
        run_node(ItaclipSegment, **given)
