# SPDX-License-Identifier: Apache-2.0
"""The memory of a GPU, computed on the meta device, against the tensors of real calls."""

import pytest
import torch
from pixelsmith.adapters import from_pipeline
from pixelsmith.adapters.memory import DeviceMemory, count_peak, measure_memory
from pixelsmith.io.tiles import Tiling
from pixelsmith.io.vae import TiledVAE
from pixelsmith.store import Canvas
from tiny_models import tiny_pipeline

TILING = Tiling(tile=16, halo=4)


def test_bytes_that_are_held_at_once_are_counted():
    def call():
        first = torch.zeros(1000)  # 4000 bytes
        second = first + 1  # 8000
        del first  # 4000
        view = second.view(10, 100)  # nothing
        return view.double().sum()  # 8000 more, then a scalar

    assert count_peak(call) == 12_000 + 8


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_the_model_of_memory_is_what_real_calls_take(family):
    model = from_pipeline(tiny_pipeline(family), "a ball", num_inference_steps=2)
    found = measure_memory(model, (256, 256), (16, 16), 3, TILING)
    denoiser, x = model.denoiser((256, 256), (16, 16)), torch.zeros(3, model.channels, 16, 16)
    real = count_peak(lambda: denoiser.predict(x, 0, [(0, 0)] * 3))
    assert found.denoising == pytest.approx(real, rel=0.05)
    tile = torch.zeros(1, model.channels, 24, 24)
    with torch.no_grad():
        assert found.autoencoding >= count_peak(lambda: model.vae.decode(tile))
    parts = (*model.network.parameters(), *model.network.buffers())
    assert found.network == sum(part.numel() * part.element_size() for part in parts)
    assert found.weights >= found.network + found.vae + found.encoder
    assert found.peak > found.peak_offloaded


def test_tiles_of_a_large_image_take_no_more_than_one_tile(monkeypatch):
    """Statistics of the whole are gathered a few windows at a time, the others wait elsewhere."""
    vae = tiny_pipeline("sdxl").vae
    elsewhere = []

    def park(tensors):
        """As for a GPU, though the tensors are on the CPU: arrays of numpy are not counted."""
        parked = []
        for tensor in {id(tensor): tensor for tensor in tensors if isinstance(tensor, torch.Tensor)}.values():
            parked.append((tensor, Later(tensor.data.numpy().copy()), tensor.device))
            tensor.data = tensor.data.new_empty(0)
        elsewhere.append(len(parked))
        return parked

    monkeypatch.setattr("pixelsmith.io.lockstep._park", park)
    counted, z = [], torch.randn(4, 120, 130, generator=torch.Generator().manual_seed(0))
    decode = vae.decode

    def counting(latents, **more):
        results = []
        counted.append((len(latents), count_peak(lambda: results.append(decode(latents, **more)))))
        return results[0]

    monkeypatch.setattr(vae, "decode", counting)
    rows = [rows for _, rows in TiledVAE(vae, TILING).decode(Canvas(z))]
    assert sum(len(part) for part in rows) == 480
    windows = [entry for entry in counted if entry[0] > 1]
    tiles = [peak for count, peak in counted if count == 1]
    assert sum(count for count, _ in windows) > 16
    assert max(peak for _, peak in windows) < max(tiles)
    assert elsewhere
    with torch.no_grad():
        plain = count_peak(lambda: decode(torch.zeros(1, 4, 24, 24)))
    assert max(tiles) < 1.05 * plain


class Later:
    """Values that wait outside of torch."""

    def __init__(self, values):
        self.values = values

    def to(self, device):
        return torch.from_numpy(self.values).clone()


def test_a_card_of_12_gb_holds_sdxl_at_4096_pixels():
    """The networks of SDXL in float16; patches, tiles and so the card do not know the size of the image."""
    with torch.device("meta"):
        unet, vae = _sdxl_unet(), _sdxl_vae()
    unet = unet.half()
    x = torch.zeros(2, 4, 128, 128, device="meta", dtype=torch.half)  # both sides of guidance
    words = {
        "encoder_hidden_states": torch.zeros(2, 77, 2048, device="meta", dtype=torch.half),
        "added_cond_kwargs": {
            "text_embeds": torch.zeros(2, 1280, device="meta", dtype=torch.half),
            "time_ids": torch.zeros(2, 6, device="meta"),
        },
    }
    timestep = torch.zeros((), device="meta")
    tile = torch.zeros(1, 4, 128, 128, device="meta")  # float32, where it does not overflow
    found = DeviceMemory(
        weights=2 * _count(unet) + 4 * _count(vae) + 2 * 817_720_320,  # CLIP-L and OpenCLIP-bigG
        network=2 * _count(unet),
        encoder=2 * 694_659_840,
        vae=4 * _count(vae),
        denoising=count_peak(lambda: unet(x, timestep, **words)),
        autoencoding=count_peak(lambda: vae.decode(tile)),
    )
    assert found.peak_offloaded < 8e9
    assert found.peak < 12e9


def _count(network):
    return sum(part.numel() for part in network.parameters())


def _sdxl_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def _sdxl_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=1024,
    )
