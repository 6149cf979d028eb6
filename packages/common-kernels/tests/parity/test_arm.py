# SPDX-License-Identifier: Apache-2.0
"""The kernels as a compiler for arm64 (NEON) makes them, run by an emulator; no torch on that side."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from common_kernels import KNNDictionary, knn_attention
from common_kernels.testing import assert_close_to_reference

PACKAGE = Path(__file__).parents[2]
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=f"needs {COMPILER} and {EMULATOR}"
    ),
]


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", PACKAGE / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_library_is_built_for_arm(hook, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", COMPILER)
    monkeypatch.setattr(hook.platform, "machine", lambda: "aarch64")
    hook.build(tmp_path / "library.so")
    assert (tmp_path / "library.so").read_bytes()[18:20] == b"\xb7\x00", "the machine of an ELF file: AArch64"


@pytest.fixture(scope="module")
def drive(hook, tmp_path_factory):
    program = tmp_path_factory.mktemp("arm") / "drive"
    sources = [PACKAGE / "csrc" / "kernels.cpp", Path(__file__).parent / "drive_kernels.cpp"]
    defines = ["-DCOMMON_KERNELS_TABLE=kernels_generic", "-DCOMMON_KERNELS_NAME=generic"]
    flags = [*hook.FLAGS, *defines, "-static", f"-I{PACKAGE / 'csrc'}"]
    subprocess.run([COMPILER, *flags, *map(str, sources), "-o", str(program)], check=True)

    def run(*arrays):
        given = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        return subprocess.run([EMULATOR, str(program)], input=given, capture_output=True, check=True).stdout

    return run


@pytest.mark.parametrize(("N", "M", "D", "K"), [(7, 9, 4, 3), (13, 33, 30, 9), (5, 40, 64, 40), (3, 4, 1, 1)])
def test_kernels_agree_with_the_reference(drive, N, M, D, K):
    B, H, bins = 2, 3, 37
    g = torch.Generator().manual_seed(N)
    q, dout = torch.randn(2, B, H, N, D, generator=g)
    k, v = torch.randn(2, B, H, M, D, generator=g)
    bias, scores = torch.randn(H, N, M, generator=g), torch.randn(B, N, M, generator=g)
    scores[0, 0] = 1.0  # of equal ones the first
    index = torch.rand(B, N, M, generator=g).argsort(dim=-1)[..., :K].int()
    index[0, -1, K // 2 :] = -1
    x, guide = torch.randn(2, bins, generator=g, dtype=torch.complex64)
    sizes = np.array([B, H, N, M, D, K, bins], np.int64)
    raw = drive(sizes, q, k, v, bias, dout, index, scores, torch.stack((x, guide)))

    leaves = {name: t.double().requires_grad_() for name, t in zip("qkvb", (q, k, v, bias), strict=True)}
    *qkv, wide_bias = leaves.values()
    dictionary = KNNDictionary(index, M)
    out = knn_attention(*qkv, dictionary, bias=wide_bias, scale=0.5, backend="reference")
    gradients = torch.autograd.grad(out, [*leaves.values()], dout.double())
    for name, expected in zip(("out", *leaves), (out.detach(), *gradients), strict=True):
        found = torch.frombuffer(bytearray(raw[: 4 * expected.numel()]), dtype=torch.float32)
        raw = raw[4 * expected.numel() :]
        assert_close_to_reference(
            found.view_as(expected), expected, name=name, dtype=torch.float32, reduction=D + K
        )
    chosen = torch.frombuffer(bytearray(raw[: 4 * B * N * K]), dtype=torch.int32).view(B, N, K)
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :K]
    assert torch.equal(chosen.long(), order.sort(dim=-1).values)
    mixed = torch.frombuffer(bytearray(raw[4 * B * N * K :]), dtype=torch.complex64)
    mean = x / x.abs() + guide / guide.abs()
    torch.testing.assert_close(mixed, x.abs() * mean / mean.abs(), rtol=1e-4, atol=1e-5)
