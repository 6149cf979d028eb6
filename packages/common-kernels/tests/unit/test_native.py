# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest
import torch
from common_kernels import BackendUnavailableError, _native, explain_backends, knn_attention, knn_dictionary
from common_kernels.info import describe, main

needs_native = pytest.mark.skipif(
    _native.why_no_native() is not None, reason=f"no compiled kernels: {_native.why_no_native()}"
)
PROBE = """
import torch
from common_kernels import explain_backends, fuse_phase, knn_attention, knn_dictionary
x = torch.ones(1, 4, 4)
dictionary = knn_dictionary(x, 2)
knn_attention(x[None], x[None], x[None], dictionary)
fuse_phase(x, x)
print(explain_backends("knn_attention", x[None], x[None], x[None], dictionary)["native"])
"""


def probe(**env):
    """Run the operators in a fresh process and return why there is no native backend."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=os.environ | env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_switched_off_everything_runs_and_says_so():
    assert (
        probe(COMMON_KERNELS_NATIVE="off") == "switched off by COMMON_KERNELS_NATIVE=off in the environment"
    )


def test_without_a_library_the_reason_names_the_cure(monkeypatch, tmp_path):
    monkeypatch.setattr(_native, "LIBRARY", tmp_path / "missing.so")
    assert "install from source where there is a C++ compiler" in _native._load()
    (tmp_path / "missing.so").write_bytes(b"not a library")
    assert "cannot be loaded" in _native._load()


@needs_native
def test_a_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(_native, "_INTERFACE", 10**6)
    assert "of another version of this package" in _native._load()


@needs_native
def test_instruction_sets_can_be_chosen_and_are_named():
    names = _native.instruction_sets()
    assert names[-1] == "generic"
    with pytest.raises(ValueError, match="name must be one of"), _native.use_instruction_set("mmx"):
        pass


def test_info_tells_each_part(capsys, monkeypatch):
    assert main() == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == list(describe())
    monkeypatch.setattr("common_kernels.info.why_no_native", lambda: "no compiler")
    assert describe()["native"] == "no: no compiler"


@needs_native
def test_auto_takes_it_where_it_is_faster():
    x = torch.zeros(1, 1, 12, 4)
    few, many = (knn_dictionary(x[0], k) for k in (8, 9))
    assert explain_backends("knn_attention", x, x, x, few)["native"] is None
    assert "2 of 3" in explain_backends("knn_attention", x, x, x, many)["native"]
    assert explain_backends("knn_dictionary", x[0], 2)["native"] is None
    assert explain_backends("fuse_phase", x, x)["native"] is None


@pytest.mark.parametrize(("dtype", "device"), [(torch.float64, "cpu"), (torch.float32, "meta")])
def test_what_it_refuses(dtype, device):
    x = torch.zeros(1, 1, 4, 4, dtype=dtype, device=device)
    dictionary = knn_dictionary(x[0], 2, backend="reference")
    word = "float64" if dtype == torch.float64 else "CPU"
    for op, arguments in {
        "knn_attention": (x, x, x, dictionary),
        "knn_dictionary": (x[0], 2),
        "fuse_phase": (x, x),
    }.items():
        assert word in explain_backends(op, *arguments)["native"]
    with pytest.raises(BackendUnavailableError, match=word):
        knn_attention(x, x, x, dictionary, backend="native")


@needs_native
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_opcheck(with_bias, requires_grad):
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 7, 4, generator=g).unbind()
    bias = torch.randn(2, 7, 7, generator=g) if with_bias else torch.empty(0)
    index = torch.rand(2, 7, 7, generator=g).argsort(dim=-1)[..., :3].int()
    leaves = [x.clone().requires_grad_(requires_grad) for x in (q, k, v)]
    bias.requires_grad_(requires_grad and with_bias)
    ops = torch.ops.common_kernels
    torch.library.opcheck(ops.knn_attention_native_fwd.default, (*leaves, bias, index, 0.3))
    if not requires_grad and not with_bias:
        none = torch.empty(0)
        scores = torch.randn(2, 5, 9, generator=g)
        torch.library.opcheck(ops.select_native.default, (scores, none, none.long(), 3, 0, 0, True))
        spectra = torch.randn(2, 3, 8, 5, generator=g, dtype=torch.complex64)
        torch.library.opcheck(ops.mix_phase_native.default, (*spectra, 0.5, 1e-38, 1e-7))
