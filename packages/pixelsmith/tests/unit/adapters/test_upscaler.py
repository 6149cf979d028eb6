# SPDX-License-Identifier: Apache-2.0
"""Learned upscalers before encoding, small random networks in the layout of the public ones."""

import numpy as np
import pytest
import torch
from pixelsmith.adapters import load_model
from pixelsmith.adapters.upscaler import SpandrelUpscaler, load_upscaler
from pixelsmith.config import LoadingConfig
from pixelsmith.io import upscaled
from pixelsmith.io.upscaled import Upscaled
from pixelsmith.job import Job, MemoryStore
from pixelsmith.store.rows import ArrayRows
from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact
from tiny_models import tiny_pipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A network of the architecture of Real-ESRGAN's small models, twice."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    path = tmp_path_factory.mktemp("upscaler") / "small.safetensors"
    save_file(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def upscaler(file):
    return load_upscaler(file, torch.float32, CPU)


def test_a_network_is_loaded_by_its_keys(upscaler, dummies):
    assert upscaler.scale == 2
    described = upscaler.describe()
    assert (described["architecture"], described["scale"]) == ("Compact", 2)
    with torch.no_grad():
        next(upscaler.network.model.parameters()).add_(1)
        assert upscaler.describe() != described
        next(upscaler.network.model.parameters()).sub_(1)
    image = dummies.scene((9, 7))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        expected = (upscaler.network.model(pixels)[0].clamp(0, 1) * 255).round().byte()
    np.testing.assert_array_equal(upscaler.enlarge(image), expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("wrap", [(False, False), (True, True), (False, True)])
def test_tiles_equal_the_whole_image(upscaler, dummies, monkeypatch, wrap):
    image = dummies.scene((60, 50))
    wide = np.pad(image, [(20, 20) if joins else (0, 0) for joins in wrap] + [(0, 0)], mode="wrap")
    expected = upscaler.enlarge(wide)
    expected = expected[40:160] if wrap[0] else expected
    expected = expected[:, 40:140] if wrap[1] else expected
    monkeypatch.setattr(upscaled, "_TILE", 16)
    rows = Upscaled(ArrayRows(image), upscaler, wrap=wrap)
    assert (rows.height, rows.width) == (120, 100)
    whole = rows.read(0, 120)
    assert np.abs(whole.astype(int) - expected).max() <= 1
    for top, bottom in ((100, 120), (3, 40), (0, 33)):
        np.testing.assert_array_equal(rows.read(top, bottom), whole[top:bottom])


def test_a_job_enlarges_by_the_network_before_it_encodes(upscaler, dummies):
    seen = []

    class Model(dummies.Dummy):
        def denoiser(self, size, patch):
            straight = super().denoiser(size, patch)
            straight.add_noise = lambda clean, noise, step: clean
            straight.advance = lambda x, prediction, step, previous: (x, None)
            return straight

    for network in (None, upscaler):
        model = Model()
        model.upscaler = network
        spec = dummies.spec(sizes=((48, 56),), grain_threshold=0.0)
        result = Job(model, spec, MemoryStore()).run()
        seen.append(result.image.array)
    # a model that keeps everything gives the means of 2 x 2 pixels of the enlarged image
    enlarged = upscaler.enlarge(dummies.scene((24, 28))).astype(float)
    cells = enlarged.reshape(24, 2, 28, 2, 3).mean(axis=(1, 3)).repeat(2, 0).repeat(2, 1)
    assert np.abs(seen[1] - cells).max() <= 0.51
    assert np.abs(seen[0] - cells).max() > 5
    # where the result is calm, it is that image, not the one of Lanczos
    spec = dummies.spec(sizes=((48, 56),), grain_threshold=40.0)
    found = Job(model, spec, MemoryStore()).run().image.array
    assert np.abs(found - enlarged).mean() < np.abs(seen[1] - enlarged).mean()


def test_a_model_is_loaded_with_its_upscaler(file, tmp_path):
    tiny_pipeline("sdxl").save_pretrained(tmp_path)
    model = load_model(tmp_path, "a boat", device="cpu", loading=LoadingConfig(upscaler=str(file)))
    assert isinstance(model.upscaler, SpandrelUpscaler)
    assert model.describe()["upscaler"]["architecture"] == "Compact"


def test_other_files_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"old\.pth is a pickle, which can run code"):
        load_upscaler("old.pth", torch.float32, CPU)
    with pytest.raises(FileNotFoundError, match=r"no upscaler 'none\.safetensors'; name a .safetensors file"):
        load_upscaler("none.safetensors", torch.float32, CPU)
    save_file({"some.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="is no upscaler that spandrel knows"):
        load_upscaler(tmp_path / "a.safetensors", torch.float32, CPU)
    with torch.random.fork_rng():
        net = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=1, upscale=1)
    save_file(net.state_dict(), tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="the upscaler must enlarge, its scale is 1"):
        load_upscaler(tmp_path / "b.safetensors", torch.float32, CPU)
