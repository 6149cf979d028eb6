# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels compile for cards that this machine does not have."""

import subprocess

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

import triton
from common_kernels.ops.knn_attention.triton import backward, forward
from common_kernels.ops.knn_attention.triton.tiles import block_d, default_tile
from common_kernels.ops.knn_dictionary.triton import passes, rows
from common_kernels.ops.knn_dictionary.triton.launch import num_slots, pass_options, row_options
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

KERNELS = {
    "fwd": forward.knn_attention_fwd_kernel,
    "bwd_dq": backward.knn_attention_bwd_dq_kernel,
    "bwd_dkv": backward.knn_attention_bwd_dkv_kernel,
    "bwd_dbias": backward.knn_attention_bwd_dbias_kernel,
}
SMALLEST_SHARED = 99 * 1024
MMA = {80: "mma.sync", 90: "wgmma.mma_async"}
POINTERS = {"bits_ptr": "*i32"} | dict.fromkeys(("lse_ptr", "delta_ptr", "bias_ptr", "dbias_ptr"), "*fp32")

pytestmark = pytest.mark.skipif(
    not isinstance(KERNELS["fwd"], JITFunction), reason="TRITON_INTERPRET=1 leaves nothing to compile"
)


def compile_kernel(kind, arch, head_dim, dtype, *, has_bias, skip_empty):
    kernel = KERNELS[kind]
    tile = default_tile(kind, head_dim, 1024, dtype, has_bias)
    constants = {
        "HEAD_DIM": head_dim,
        "BLOCK_D": block_d(head_dim),
        "HAS_BIAS": has_bias,
        "STORE_LSE": True,
        "SKIP_EMPTY": skip_empty,
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
    }
    constants |= dict.fromkeys(("stride_qd", "stride_kd", "stride_vd", "stride_od"), 1)
    if not has_bias:
        constants["bias_ptr"] = None
    operand = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype]
    signature, aligned = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = POINTERS.get(name, operand)
        else:
            signature[name] = "fp32" if name.startswith("scale") else "i64" if "stride" in name else "i32"
        if (
            signature[name] != "constexpr"
            and (name.endswith("_ptr") or "stride" in name)
            and head_dim % 8 == 0
        ):
            aligned[(i,)] = [["tt.divisibility", 16]]
    constants = {name: value for name, value in constants.items() if name in signature}
    return triton.compile(
        ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": True},
    )


def spills(compiled, folder):
    """Return whether the machine code stores registers in local memory."""
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "-sass", str(cubin)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "EXIT" in code
    return " STL" in code


@pytest.mark.parametrize("arch", MMA)
@pytest.mark.parametrize("kind", KERNELS)
def test_bf16_runs_on_tensor_cores_and_streams_its_operands(kind, arch):
    compiled = compile_kernel(kind, arch, 32, torch.bfloat16, has_bias=kind == "bwd_dbias", skip_empty=False)
    assert compiled.metadata.shared <= SMALLEST_SHARED
    assert MMA[arch] in compiled.asm["ptx"]
    # asynchronous copies show that the loop is pipelined
    assert "cp.async" in compiled.asm["ptx"]


@pytest.mark.parametrize("kind", KERNELS)
def test_fp32_products_are_not_tf32(kind):
    compiled = compile_kernel(kind, 80, 16, torch.float32, has_bias=True, skip_empty=False)
    assert compiled.metadata.shared <= SMALLEST_SHARED
    assert "fma.rn.f32" in compiled.asm["ptx"]
    assert "tf32" not in compiled.asm["ptx"]


@pytest.mark.parametrize("kind", KERNELS)
def test_every_flag_together_with_an_unaligned_head(kind):
    compiled = compile_kernel(kind, 90, 30, torch.float16, has_bias=True, skip_empty=True)
    assert compiled.metadata.shared <= SMALLEST_SHARED
    assert MMA[90] in compiled.asm["ptx"]


@pytest.mark.parametrize("kind", KERNELS)
def test_widest_head_with_a_bias_fits_the_smallest_card(kind):
    compiled = compile_kernel(kind, 80, 128, torch.float16, has_bias=True, skip_empty=False)
    assert compiled.metadata.shared <= SMALLEST_SHARED


def test_empty_tiles_are_branched_over_only_on_request():
    without, with_skip = (
        compile_kernel("fwd", 90, 32, torch.float16, has_bias=False, skip_empty=skip)
        .asm["ttir"]
        .count("scf.if")
        for skip in (False, True)
    )
    assert with_skip > without


def compile_dictionary(kernel, arch, dtype, constants, options):
    pointers = {"x_ptr": "*fp32" if dtype == torch.float32 else "*bf16", "column_ptr": "*fp32"}
    pointers |= {"region_ptr": "*i64", "found_ptr": "*i64"}
    constants = {"SIMILARITY": "l2", "HAS_REGIONS": True, "FORCE_SELF": True} | constants
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature, aligned = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        else:
            signature[name] = pointers.get(name, "*i32") if name.endswith("_ptr") else "i32"
        if name.endswith("_ptr") or name == "C":  # as torch allocates; 192 channels
            aligned[(i,)] = [["tt.divisibility", 16]]
    return triton.compile(
        ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", arch, 32),
        options=options | {"enable_fp_fusion": True},
    )


def assert_exact_products(compiled, dtype):
    """Fp32 similarities must not be rounded to TF32; those of bf16 are exact in a tensor core."""
    has_tensor_cores = any(name in compiled.asm["ptx"] for name in MMA.values())
    assert has_tensor_cores == (dtype == torch.bfloat16)


@pytest.mark.parametrize(
    ("block_n", "dtype"), [(256, torch.float32), (1024, torch.float32), (2048, torch.bfloat16)], ids=str
)
@pytest.mark.parametrize("arch", MMA)
def test_dictionary_fits_the_smallest_card(arch, block_n, dtype):
    options = row_options(block_n)
    constants = {name: options.pop(name) for name in ("BLOCK_R", "BLOCK_C")}
    constants |= {"BLOCK_N": block_n, "BLOCK_K": 64}
    compiled = compile_dictionary(rows.knn_dictionary_rows_kernel, arch, dtype, constants, options)
    assert compiled.metadata.shared <= SMALLEST_SHARED
    assert_exact_products(compiled, dtype)


PASSES = ("maxima", "collect", "exact")


def compile_pass(name, arch, dtype, k):
    options = pass_options(name, dtype)
    constants = {size: options.pop(size) for size in ("BLOCK_R", "BLOCK_N", "BLOCK_C")}
    constants |= {"SLOTS": num_slots(k), "BLOCK_K": triton.next_power_of_2(k)}
    kernel = getattr(passes, f"knn_dictionary_{name}_kernel")
    return compile_dictionary(kernel, arch, dtype, constants, options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("arch", MMA)
@pytest.mark.parametrize("name", PASSES)
def test_passes_over_long_windows_fit_the_smallest_card(name, arch, dtype, tmp_path):
    compiled = compile_pass(name, arch, dtype, 64)
    assert compiled.metadata.shared <= SMALLEST_SHARED
    assert not spills(compiled, tmp_path)
    assert_exact_products(compiled, dtype)


@pytest.mark.parametrize("k", [16, 1024])
@pytest.mark.parametrize("name", ["bound", "choose"])
def test_choosing_fits_the_smallest_card(name, k, tmp_path):
    constants = {"SLOTS": num_slots(k), "BLOCK_R": 2048 // num_slots(k), "BLOCK_K": triton.next_power_of_2(k)}
    kernel = getattr(passes, f"knn_dictionary_{name}_kernel")
    compiled = compile_dictionary(kernel, 80, torch.float32, constants, {"num_warps": 4})
    assert compiled.metadata.shared <= SMALLEST_SHARED
    assert not spills(compiled, tmp_path)
