# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels.runtime.comfyui_host import Interrupted, StandIn, run_node
from semanir import RestoreOptions, Restorer, SemanIR, SemanIRConfig
from semanir.comfyui import SemanirLoad, SemanirRestore


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SemanIR(
        SemanIRConfig.preset(
            "tiny", embed_dims=(8, 8), num_heads=(1, 1), depths=(1, 1, 1, 1), window_size=2, conv_blocks=()
        )
    ).eval()


@pytest.fixture
def image():
    return torch.rand(2, 33, 29, 3, generator=torch.Generator().manual_seed(0))


def test_a_batch_is_restored_as_the_restorer_does(network, image, tmp_path):
    network.save_pretrained(tmp_path / "net")
    with StandIn().installed() as host:
        (restorer,) = run_node(SemanirLoad, model=str(tmp_path / "net"))
        (restored,) = run_node(SemanirRestore, restorer=restorer, image=image, strength=0.5, k=2, tile=24)
    options = RestoreOptions(strength=0.5, k=2, tile=24)
    expected = Restorer(network).restore(image.movedim(-1, 1), options).clamp(0, 1)
    torch.testing.assert_close(restored.movedim(-1, 1), expected)
    assert host.freed == 1, "ComfyUI's own models make way"
    assert host.steps[-1][0] == host.steps[-1][1] > 2


def test_files_of_comfyui_are_offered_and_loaded(network, image, tmp_path):
    folder = tmp_path / "upscale_models"
    network.save_pretrained(folder / "mine")
    (folder / "old.pth").write_bytes(b"")
    with StandIn(tmp_path).installed():
        assert SemanirLoad.INPUT_TYPES()["required"]["file"][0] == ["none", "mine/model.safetensors"]
        (restorer,) = run_node(SemanirLoad, file="mine/model.safetensors")
        assert run_node(SemanirRestore, restorer=restorer, image=image)[0].shape == image.shape


def test_a_user_who_cancels_ends_it(network, image):
    with StandIn(interrupt_at=2).installed(), pytest.raises(Interrupted):
        run_node(SemanirRestore, restorer=Restorer(network), image=image, tile=24)
