# SPDX-License-Identifier: Apache-2.0
"""The operators of this package beside what torch alone offers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels import KNNDictionary, fuse_phase, knn_attention, knn_dictionary
from common_kernels.bench.case import Case, Mode, Problem
from common_kernels.testing import photo_features

# windows, heads, tokens, head_dim, keys per query
_CPU_ATTENTION = (
    (64, 2, 64, 32, 32),
    (4, 6, 256, 32, 64),
    (1, 6, 1024, 32, 128),
    (1, 6, 1024, 30, 128),
    (1, 6, 1024, 32, 512),
    (1, 6, 4096, 32, 64),
    (1, 6, 4096, 32, 128),
    (1, 2, 16384, 64, 64),
)
_QUICK = {(64, 2, 64, 32, 32), (4, 6, 256, 32, 64), (1, 6, 1024, 32, 128)}
# 65536 tokens each, as in a training batch of large crops
_CUDA_ATTENTION = (
    (256, 6, 256, 32, 64),
    (64, 6, 1024, 32, 128),
    (64, 6, 1024, 32, 512),
    (16, 6, 4096, 32, 128),
    (4, 6, 16384, 32, 64),
    (4, 4, 16384, 64, 256),
    (1, 6, 1024, 32, 128),
)
_GATHER_LIMIT = 2**31  # elements of the copied keys beyond which gather is left out
_DENSE_LIMIT = 2**28  # pairs beyond which dense scores are left out on the CPU


def attention_cases(device: torch.device, *, quick: bool = False, flex: bool = False) -> list[Case]:
    """Return the sizes of ``knn_attention``; ``flex`` adds FlexAttention, which is slow to compile."""
    sizes = _CUDA_ATTENTION if device.type == "cuda" else _CPU_ATTENTION
    cases: list[Case] = []
    for size in sizes:
        if quick and device.type == "cpu" and size not in _QUICK:
            continue
        B, heads, N, head_dim, k = size
        itemsize = 2 if device.type == "cuda" else 4
        modes: tuple[Mode, ...] = ("forward", "both")
        cases.append(
            Case(
                name=f"B{B} H{heads} N{N} d{head_dim} k{k}",
                op="knn_attention",
                shape={"B": B, "heads": heads, "N": N, "head_dim": head_dim, "k": k},
                make=partial(_attention, size, flex),
                baseline="gather"
                if B * heads * N * k * head_dim <= _GATHER_LIMIT and N <= 4096
                else "chunked",
                modes=modes,
                flop=4.0 * B * N * heads * k * head_dim,
                min_bytes=4.0 * B * N * heads * head_dim * itemsize + 4.0 * B * N * k,
                tolerance=2e-2 if device.type == "cuda" else 1e-5,
            )
        )
    return cases


def _attention(size: tuple[int, int, int, int, int], flex: bool, device: torch.device) -> Problem:
    B, heads, N, head_dim, k = size
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q, keys, v = (
        torch.randn(B, heads, N, head_dim, generator=generator).to(device, dtype).requires_grad_()
        for _ in range(3)
    )
    dictionary = knn_dictionary(photo_features(N, B=B).to(device), k, similarity="cosine")
    wide = [x.detach().double() for x in (q, keys, v)]
    call = partial(knn_attention, q, keys, v, dictionary)
    contenders: dict[str, Callable[[], Tensor]] = {"auto": call}
    small = B * heads * N * k * head_dim <= _GATHER_LIMIT and N <= 4096
    if small:
        contenders["gather"] = partial(call, backend="reference")
    dense = device.type == "cuda" or B * heads * N * N <= _DENSE_LIMIT
    if dense:
        allowed = dictionary.allowed().unsqueeze(1)
        contenders["SDPA, boolean mask"] = partial(
            F.scaled_dot_product_attention, q, keys, v, attn_mask=allowed
        )
        contenders["SDPA, float mask"] = partial(call, backend="sdpa")
        contenders["masked softmax"] = partial(_masked_softmax, q, keys, v, allowed)
    if device.type == "cpu":
        contenders["sparse rows"] = partial(call, backend="csr")
    contenders["chunked"] = partial(call, backend="chunked")
    if flex and N <= 4096:
        contenders["FlexAttention"] = _flex(q, keys, v, dictionary)
    reference = partial(
        knn_attention, *wide, dictionary, backend="csr" if device.type == "cpu" else "chunked"
    )
    return Problem(contenders, reference, (q, keys, v))


def _masked_softmax(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    return scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1) @ v


def _flex(q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary) -> Callable[[], Tensor]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    allowed = dictionary.allowed()

    def listed(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return allowed[b, query, key]

    N = dictionary.num_queries
    blocks = create_block_mask(listed, dictionary.batch_size, None, N, N, device=q.device.type)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(q, k, v, block_mask=blocks)


def dictionary_cases(device: torch.device, *, quick: bool = False) -> list[Case]:
    """Return the sizes of ``knn_dictionary``; contenders give sums of the indices, which must agree."""
    sizes = [(64, 64, 64, 32), (8, 256, 192, 64), (2, 1024, 192, 128), (2, 1024, 192, 512)]
    if not quick:
        sizes.append((1, 4096, 192, 64))
    return [
        Case(
            name=f"B{B} N{N} C{C} k{k}",
            op="knn_dictionary",
            shape={"B": B, "N": N, "C": C, "k": k},
            make=partial(_dictionary, (B, N, C, k)),
            baseline="matmul, topk",
            flop=2.0 * B * N * N * C,
            min_bytes=4.0 * B * N * (C + k),
        )
        for B, N, C, k in sizes
    ]


def _dictionary(size: tuple[int, int, int, int], device: torch.device) -> Problem:
    B, N, C, k = size
    x = photo_features(N, C, B=B).to(device)

    def by_topk(is_sorted: bool) -> Tensor:
        return (x @ x.mT).topk(k, dim=-1, sorted=is_sorted).indices.sum(dim=-1).float()

    def auto() -> Tensor:
        return knn_dictionary(x, k, force_self=False).index.sum(dim=-1).float()

    contenders = {
        "auto": auto,
        "matmul, topk": partial(by_topk, True),
        "matmul, unsorted topk": partial(by_topk, False),
    }
    return Problem(contenders, None)


def fusion_cases(device: torch.device, *, quick: bool = False) -> list[Case]:
    """Return the sizes of ``fuse_phase``."""
    sizes = [(1, 64), (1, 96), (1, 128), (16, 128)]
    return [
        Case(
            name=f"{B}x4x{side}x{side}",
            op="fuse_phase",
            shape={"B": B, "H": side, "W": side},
            make=partial(_fusion, B, side),
            baseline="angles",
            min_bytes=3.0 * 4 * B * 4 * side * side,
            tolerance=1e-3,  # a mean phasor near zero magnifies the rounding of its bin
        )
        for B, side in sizes
        if not (quick and B > 1)
    ]


def _fusion(B: int, side: int, device: torch.device) -> Problem:
    generator = torch.Generator().manual_seed(0)
    # a common mean of one sign: on opposite signs the angle formula differs on purpose
    x, guidance = (1 + torch.randn(B, 4, side, side, generator=generator).to(device) for _ in range(2))
    call = partial(fuse_phase, x, guidance)
    angles = partial(call, backend="reference")
    # not in float64: which bins count as having no direction depends on the precision
    return Problem({"auto": call, "angles": angles}, angles)
