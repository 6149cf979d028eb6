# SPDX-License-Identifier: Apache-2.0
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from common_kernels.runtime import comfyui
from common_kernels.runtime.comfyui_host import Interrupted, StandIn, check_node, load_pack, run_node

PACK = """
from common_kernels.runtime import comfyui

class Invert:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE", "MASK")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "images": ("IMAGE",),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}),
            },
            "optional": {"mode": (["all", "none"], {"default": "all"})},
        }

    def run(self, images, strength, mode="all"):
        arrays, report = comfyui.from_images(images), comfyui.progress()
        for done, array in enumerate(arrays):
            report(done + 1, len(arrays))
        made = [array if mode == "none" else 255 - array for array in arrays]
        return comfyui.to_images(made), comfyui.to_masks([array[..., 0] > 127 for array in made])

NODE_CLASS_MAPPINGS = {"Invert": Invert}
NODE_DISPLAY_NAME_MAPPINGS = {"Invert": "Invert an image"}
"""


@dataclass(frozen=True, kw_only=True)
class Base:
    """Settings.

    Attributes:
        steps: Number of steps,
            all told.
        negative: Text; nothing if ``None``.
    """

    steps: int = 50
    negative: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings(Base):
    """Settings.

    Attributes:
        size: Size.
        mode: Mode.
        weight: Weight.
        on: Whether.
        folder: Folder.
        rows: Rows.
    """

    size: int
    mode: Literal["fast", "slow"] = "slow"
    weight: float | None = 0.5
    on: bool = True
    folder: Path = Path("x")
    rows: tuple[int, ...] = ()


@pytest.fixture
def pack(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text(PACK)
    return tmp_path / "pack"


def test_images_go_there_and_back():
    arrays = [np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * factor for factor in (1, 10)]
    images = comfyui.to_images(arrays)
    assert (images.shape, images.dtype) == ((2, 2, 4, 3), torch.float32)
    assert all((a == b).all() for a, b in zip(arrays, comfyui.from_images(images), strict=True))
    assert comfyui.from_images(torch.tensor([-1.0, 2.0]).reshape(1, 1, 2, 1))[0].ravel().tolist() == [0, 255]
    assert comfyui.from_images(torch.ones(1, 1, 1, 4, dtype=torch.bfloat16))[0].shape == (1, 1, 4)


def test_depths_and_grey():
    grey = comfyui.to_images([np.full((2, 3), 65535, np.uint16)])
    assert (grey.shape, float(grey.min())) == ((1, 2, 3, 3), 1)
    assert float(comfyui.to_images([np.full((1, 1, 3), 0.25)]).max()) == 0.25
    masks = comfyui.to_masks([np.eye(3, dtype=bool), np.full((3, 3), 51, np.uint8)])
    assert masks[0].tolist() == np.eye(3).tolist()
    assert masks[1, 0, 0] == pytest.approx(0.2)


@pytest.mark.parametrize("shapes", [(), ((2, 3, 3), (3, 2, 3))])
def test_a_batch_has_one_shape(shapes):
    with pytest.raises(ValueError, match="have one shape, got"):
        comfyui.to_images([np.zeros(shape, np.uint8) for shape in shapes])
    with pytest.raises(ValueError, match=r"have one shape \(H, W\), got"):
        comfyui.to_masks([np.zeros(shape, np.uint8) for shape in shapes])


def test_an_image_has_four_dimensions():
    with pytest.raises(ValueError, match=r"has the shape \(B, H, W, C\), got \(2, 2, 3\)"):
        comfyui.from_images(torch.zeros(2, 2, 3))


def test_widgets_are_the_fields_of_a_configuration():
    found = comfyui.widgets(
        Settings, "mode", "steps", "weight", "on", "folder", "negative", steps={"min": 1, "max": 99}
    )
    assert list(found) == ["mode", "steps", "weight", "on", "folder", "negative"]
    assert found["mode"] == (["fast", "slow"], {"tooltip": "Mode.", "default": "slow"})
    assert found["steps"] == (
        "INT", {"min": 1, "max": 99, "tooltip": "Number of steps, all told.", "default": 50}
    )  # fmt: skip
    assert found["weight"][1].items() >= {"default": 0.5, "step": 0.01}.items()
    assert found["on"] == ("BOOLEAN", {"tooltip": "Whether.", "default": True})
    assert [found[name][0] for name in ("weight", "folder", "negative")] == ["FLOAT", "STRING", "STRING"]
    assert [found[name][1]["default"] for name in ("folder", "negative")] == ["x", ""]
    assert comfyui.widgets(Settings, "size", size={"default": 8})["size"][1]["default"] == 8


def test_what_cannot_be_a_widget():
    with pytest.raises(TypeError, match="rows cannot be a widget: it is tuple"):
        comfyui.widgets(Settings, "rows")
    with pytest.raises(TypeError, match="size needs a default"):
        comfyui.widgets(Settings, "size")
    with pytest.raises(ValueError, match="Settings has no field speed"):
        comfyui.widgets(Settings, "speed")


def test_outside_of_comfyui_nothing_is_asked():
    comfyui.progress()(1, 2)
    comfyui.free_memory()
    assert (comfyui.host_device(), comfyui.model_files("checkpoints")) == ("auto", [])
    with pytest.raises(FileNotFoundError, match="no file 'a' among its checkpoints"):
        comfyui.model_path("checkpoints", "a")


def test_the_host_is_asked(tmp_path):
    (tmp_path / "checkpoints" / "xl").mkdir(parents=True)
    file = tmp_path / "checkpoints" / "xl" / "a.safetensors"
    file.touch()
    with StandIn(tmp_path).installed() as host:
        comfyui.free_memory()
        assert (host.freed, comfyui.host_device()) == (1, "cpu")
        assert comfyui.model_files("checkpoints") == [str(Path("xl") / "a.safetensors")]
        assert comfyui.model_path("checkpoints", str(Path("xl") / "a.safetensors")) == file
        with pytest.raises(FileNotFoundError, match="no file 'b'"):
            comfyui.model_path("checkpoints", "b")
    assert "comfy.utils" not in sys.modules


def test_a_pack_is_loaded_checked_and_run(pack):
    images = torch.rand(3, 4, 5, 3)
    with StandIn().installed() as host:
        node = load_pack(pack)["Invert"]
        check_node(node)
        made, masks = run_node(node, images=images)
    assert torch.allclose(made, 1 - images, atol=1 / 255)
    assert masks.shape == (3, 4, 5)
    assert host.steps == [(1, 3), (2, 3), (3, 3)]


def test_what_is_imported_beside_the_host_stays(pack, tmp_path, monkeypatch):
    (tmp_path / "imported_by_a_pack.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with (pack / "__init__.py").open("a") as file:
        file.write("import imported_by_a_pack")
    with StandIn().installed():
        load_pack(pack)
    assert "comfy" not in sys.modules
    assert sys.modules.pop("imported_by_a_pack")


def test_a_user_cancels(pack):
    with StandIn(interrupt_at=2).installed() as host, pytest.raises(Interrupted):
        run_node(load_pack(pack)["Invert"], images=torch.rand(3, 4, 5, 3))
    assert host.steps == [(1, 3)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Invert misses images"),
        ({"images": None, "depth": 1}, "has no input depth"),
        ({"images": None, "strength": 2}, r"strength must be from 0.0 to 1.0, got 2.0"),
        ({"images": None, "mode": "some"}, "mode must be one of"),
    ],
)
def test_values_are_checked_as_the_host_checks_them(pack, given, message):
    with pytest.raises(TypeError, match=message):
        run_node(load_pack(pack)["Invert"], **given)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('("IMAGE", "MASK")', '"IMAGE"', "RETURN_TYPES must be a tuple"),
        ('"test", "run"', '"", "run"', "needs a CATEGORY"),
        ('"default": "all"', '"default": "most"', "mode must be one of"),
        ('mode="all"):', "mode):", "missing a required argument"),
        ('"required": {', '"needed": {', "has the groups needed, optional"),
        ('"run", (', '"run", ("LATENT", ', "must return a tuple of 3"),
        ("comfyui.to_images(made)", "images.half()", "must return a float32 IMAGE"),
    ],
)
def test_a_malformed_node_is_found(pack, old, new, message):
    assert old in PACK
    (pack / "__init__.py").write_text(PACK.replace(old, new))
    node = load_pack(pack)["Invert"]

    def drive():
        check_node(node)
        run_node(node, images=torch.rand(1, 4, 4, 3))

    with pytest.raises(TypeError, match=message):
        drive()


def test_a_shown_name_belongs_to_a_node(pack):
    (pack / "__init__.py").write_text(PACK.replace('{"Invert": "Invert an', '{"Inverts": "Invert an'))
    with pytest.raises(ValueError, match="names without a node: Inverts"):
        load_pack(pack)
