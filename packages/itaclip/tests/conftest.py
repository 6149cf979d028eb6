# SPDX-License-Identifier: Apache-2.0
import copy
import functools
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from common_kernels.runtime.cli import run_app
from itaclip.cli import app
from itaclip.text.classes import ClassList
from open_clip.model import CLIP, CustomTextCLIP
from torch.nn import functional as F

TEXT = {"context_length": 16, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 8, "layers": 4, "width": 32, "head_width": 16}
TIMM_MODELS = {
    "siglip": {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"},
    "eva": {"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token", "timm_proj": None},
    "pe": {"timm_model_name": "vit_pe_core_base_patch16_224", "timm_pool": "map", "timm_proj": None},
}
TINY_TRUNK = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}


def scatter(model, seed):
    """Move the weights far from their initial values, so that features differ clearly."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


@functools.cache
def make_native(seed=0, **vision):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return scatter(CLIP(24, {**VISION, **vision}, TEXT), seed)


@functools.cache
def make_exact(seed=0, **vision):
    """Return the same model in fp64."""
    return copy.deepcopy(make_native(seed, **vision)).double()


@functools.cache
def make_timm(kind, seed=0, **trunk):
    create = timm.create_model
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(timm, "create_model", lambda name, **kw: create(name, **{**kw, **TINY_TRUNK, **trunk}))
        torch.manual_seed(seed)
        width = 32 if kind == "siglip" else 24
        vision = {"image_size": 32, **TIMM_MODELS[kind]}
        return scatter(CustomTextCLIP(width, vision, TEXT), seed)


def random_text(names, dim=24, seed=3):
    return F.normalize(torch.randn(names, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def random_image(*shape, seed=5):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def tools():
    """Builders of tiny models and inputs, and the serial algorithm."""
    reference = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("reference.py"))))
    return SimpleNamespace(
        native=make_native,
        exact=make_exact,
        timm=make_timm,
        text=random_text,
        image=random_image,
        reference=reference,
    )


@pytest.fixture(scope="session")
def classes():
    return ClassList.build({"cat": ["feline"], "dog": [], "cow": []}, background=["sky", "wall"])


@pytest.fixture
def invoke(capsys, monkeypatch, tmp_path):
    """Run the command line in a folder of its own; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ITACLIP_CACHE", str(tmp_path / ".cache"))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def call(*tokens, code=0):
        capsys.readouterr()
        found = run_app(app, [*map(str, tokens)])
        stdout, stderr = capsys.readouterr()
        assert found == code, stdout + stderr
        assert "Traceback" not in stderr
        return SimpleNamespace(stdout=stdout, stderr=stderr)

    yield call
    assert list(tmp_path.rglob("*.part*")) == []
