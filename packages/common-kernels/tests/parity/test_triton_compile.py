# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels of knn_attention compile for cards that this machine does not have."""

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

import triton
from common_kernels.ops.knn_attention.triton import backward, forward
from common_kernels.ops.knn_attention.triton.tiles import block_d, default_tile
from common_kernels.ops.knn_dictionary.triton import knn_dictionary_kernel, launch_options
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


@pytest.mark.parametrize(
    ("block_n", "dtype"), [(256, torch.float32), (1024, torch.float32), (2048, torch.bfloat16)], ids=str
)
@pytest.mark.parametrize("arch", MMA)
def test_dictionary_fits_the_smallest_card(arch, block_n, dtype):
    kernel = knn_dictionary_kernel
    options = launch_options(block_n, dtype)
    constants = {name: options.pop(name) for name in ("BLOCK_R", "BLOCK_C")}
    constants |= {"IS_L2": True, "HAS_REGIONS": True, "FORCE_SELF": True, "BLOCK_N": block_n, "BLOCK_K": 64}
    pointers = {
        "x_ptr": "*fp32" if dtype == torch.float32 else "*bf16",
        "norm_ptr": "*fp32",
        "region_ptr": "*i64",
        "index_ptr": "*i32",
    }
    signature = {
        name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names
    }
    compiled = triton.compile(
        ASTSource(kernel, signature, constants), target=GPUTarget("cuda", arch, 32), options=options
    )
    assert compiled.metadata.shared <= SMALLEST_SHARED
    # fp32 similarities must not be rounded to TF32; bf16 products are exact in a tensor core
    assert ("mma.sync" in compiled.asm["ptx"]) == (dtype == torch.bfloat16)
