# SPDX-License-Identifier: Apache-2.0
"""Networks of others through spandrel, and ours as others load them."""

import json
import pickle

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from common_kernels.runtime.hub import ModelNotFoundError
from safetensors.torch import load_file, save_file
from semanir import RestoreOptions, Restorer, SemanIR, SemanIRConfig
from semanir.cli import app
from semanir.foreign import ForeignNetwork, convert_pickle, load_foreign
from semanir.networks import load_network
from semanir.registration import ID, register
from semanir.weights import CONFIG_TENSOR
from spandrel import MAIN_REGISTRY, ArchRegistry, ImageModelDescriptor, ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.GRL import GRL
from spandrel.architectures.HAT import HAT
from spandrel.architectures.SwinIR import SwinIR

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def swinir(upscale):
    tail = "pixelshuffledirect" if upscale > 1 else ""
    return SwinIR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=8, mlp_ratio=2.0, upscale=upscale,
        upsampler=tail,
    )  # fmt: skip


ARCHITECTURES = {
    "SwinIR": (lambda: swinir(2), 2),
    "SwinIR-restoration": (lambda: swinir(1), 1),
    "HAT": (
        lambda: HAT(
            img_size=32, embed_dim=12, depths=(2,), num_heads=(2,), window_size=8, mlp_ratio=2.0, upscale=2,
            compress_ratio=3, squeeze_factor=6, upsampler="pixelshuffle",
        ),
        2,
    ),
    "GRL": (
        lambda: GRL(
            img_size=64, embed_dim=12, depths=[2], num_heads_window=[2], num_heads_stripe=[2], window_size=8,
            stripe_size=[8, 8], mlp_ratio=2, anchor_window_down_factor=4, stripe_shift=True, upscale=1,
        ),
        1,
    ),
    "RealESRGAN Compact": (lambda: Compact(num_feat=8, num_conv=2, upscale=2), 2),
}  # fmt: skip


@pytest.fixture
def published(tmp_path):
    """Return a function that stores a random network as others publish theirs."""

    def store(name):
        torch.manual_seed(0)
        model = ARCHITECTURES[name][0]().eval()
        tensors = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
        save_file(tensors, tmp_path / "theirs.safetensors")
        return model, tmp_path / "theirs.safetensors"

    return store


@pytest.fixture
def ours(tmp_path):
    torch.manual_seed(0)
    config = SemanIRConfig.preset(
        "tiny", embed_dims=(8, 8), num_heads=(1, 1), depths=(1, 1, 1, 1), conv_blocks=(), window_size=4, k=5
    )
    model = SemanIR(config).eval()
    model.save_pretrained(tmp_path / "ours")
    return model, tmp_path / "ours" / "model.safetensors"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_of_others_restore(published, name):
    model, file = published(name)
    scale = ARCHITECTURES[name][1]
    restorer = Restorer.from_pretrained(file, device="cpu")
    assert restorer.model.config.architecture == name.removesuffix("-restoration")
    assert restorer.model.config.upscale == scale
    image = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    restored = restorer.restore(image)
    assert restored.shape == (32 * scale, 32 * scale, 3)
    with torch.inference_mode():
        [expected] = model(torch.from_numpy(image).permute(2, 0, 1)[None]).clamp(0, 1)
    torch.testing.assert_close(torch.from_numpy(restored).permute(2, 0, 1), expected, rtol=0, atol=1e-5)


def test_any_size_any_kind_and_tiles(published):
    _, file = published("SwinIR")
    restorer = Restorer.from_pretrained(file, device="cpu")
    rng = np.random.default_rng(0)
    assert restorer.restore(rng.integers(0, 256, (9, 21), dtype=np.uint8)).shape == (18, 42)
    image = rng.integers(0, 256, (40, 90, 4), dtype=np.uint8)
    tiled = restorer.restore(image, RestoreOptions(tile=48))
    assert (tiled.shape, tiled.dtype) == ((80, 180, 4), np.uint8)
    with pytest.raises(ValueError, match="k belongs to SemanIR, but this network is SwinIR"):
        restorer.restore(image, RestoreOptions(k=8))


def test_dtypes_that_an_architecture_does_not_run_in(published):
    _, file = published("SwinIR")
    with pytest.raises(ValueError, match="SwinIR does not run in float16"):
        load_foreign(file, device="cpu", dtype="float16")
    assert next(load_foreign(file, device="cpu", dtype="bfloat16").parameters()).dtype == torch.bfloat16


def test_files_that_are_no_network(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelNotFoundError, match="no architecture that spandrel knows"):
        load_network(tmp_path / "a.safetensors")
    with pytest.raises(ModelNotFoundError, match="another architecture"):
        SemanIR.from_pretrained(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelNotFoundError, match="damaged"):
        load_network(tmp_path / "b.safetensors")


def test_without_spandrel_the_extra_is_named(published, monkeypatch):
    _, file = published("SwinIR")
    monkeypatch.setattr("semanir.foreign.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install \"semanir\[spandrel\]\""):
        load_network(file)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


class TestPickles:
    @pytest.fixture
    def pickled(self, tmp_path):
        torch.manual_seed(0)
        model = swinir(2)
        torch.save({"params_ema": model.state_dict(), "epoch": 3}, tmp_path / "theirs.pth")
        return model, tmp_path / "theirs.pth"

    def test_they_are_refused_with_the_way(self, pickled):
        with pytest.raises(ModelNotFoundError, match=r"is a pickle.*semanir convert"):
            load_network(pickled[1])

    def test_their_tensors_are_taken_out(self, pickled, tmp_path, capfd):
        model, file = pickled
        target = tmp_path / "theirs.safetensors"
        words = ["convert", str(file), "-o", str(target), "--json"]
        assert run_app(app, words) == 0
        assert json.loads(capfd.readouterr().out)["architecture"] == "SwinIR"
        stored = load_file(target)
        assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
        assert isinstance(load_network(target, device="cpu"), ForeignNetwork)
        assert run_app(app, words) == 2
        assert "--overwrite" in capfd.readouterr().err

    def test_code_in_them_does_not_run(self, tmp_path):
        with (tmp_path / "trap.pth").open("wb") as file:
            pickle.dump({"params": Trap()}, file)
        torch.save({"params": Trap()}, tmp_path / "other.pth")
        for name in ("trap.pth", "other.pth"):
            with pytest.raises(ModelNotFoundError, match="holds more than tensors"):
                convert_pickle(tmp_path / name, tmp_path / "a.safetensors")
        assert not (tmp_path / "a.safetensors").exists()

    def test_the_file_to_write_is_safetensors(self, pickled, tmp_path):
        with pytest.raises(ValueError, match=r"must be a \.safetensors"):
            convert_pickle(pickled[1], tmp_path / "a.pth")


class TestOursElsewhere:
    def test_spandrel_loads_our_file(self, ours):
        model, file = ours
        registry = ArchRegistry()
        register(registry)
        found = ModelLoader(registry=registry).load_from_file(file)
        assert isinstance(found, ImageModelDescriptor)
        assert (found.architecture.id, found.purpose, found.scale) == (ID, "Restoration", 1)
        assert (found.input_channels, found.output_channels) == (3, 3)
        assert isinstance(found.model, SemanIR)
        assert found.model.config == model.config
        x = torch.rand(1, 3, 19, 26, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert torch.equal(found(x), model(x).clamp(0, 1))

    def test_the_main_registry_asks_for_ours_first(self, ours):
        register()
        register()
        assert MAIN_REGISTRY.architectures("detection")[0].architecture.id == ID
        assert ModelLoader().load_from_file(ours[1]).architecture.id == ID
        assert ModelLoader().load_from_state_dict(swinir(2).state_dict()).architecture.id == "SwinIR"

    def test_super_resolution_says_so(self, tmp_path):
        SemanIR(
            SemanIRConfig.preset(
                "sr-small", embed_dims=(8,), num_heads=(1,), depths=(1,), window_size=4, upscale=3
            )
        ).save_pretrained(tmp_path)
        registry = ArchRegistry()
        register(registry)
        found = ModelLoader(registry=registry).load_from_file(tmp_path / "model.safetensors")
        assert (found.purpose, found.scale) == ("SR", 3)

    def test_a_damaged_configuration_is_one_sentence(self, ours):
        registry = ArchRegistry()
        register(registry)
        weights = load_file(ours[1])
        for wrong in (b"{", b"[]", b'{"depth": 3}'):
            weights[CONFIG_TENSOR] = torch.frombuffer(bytearray(wrong), dtype=torch.uint8)
            with pytest.raises(ModelNotFoundError, match="SemanIR configuration"):
                registry.load(weights)

    def test_a_file_alone_is_a_model_of_ours(self, ours):
        model, file = ours
        x = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(0))
        for loaded in (SemanIR.from_pretrained(file, device="cpu"), load_network(file, device="cpu")):
            assert torch.equal(loaded(x), model(x))
        again = SemanIR(model.config)
        again.load_state_dict(load_file(file))
        assert torch.equal(again.eval()(x), model(x))
