# SPDX-License-Identifier: Apache-2.0
"""``knn_attention`` beside what torch alone offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels import Backend, KNNDictionary, explain_backends, knn_attention, knn_dictionary
from common_kernels.bench.case import Case, Contender, Inputs, Mode
from common_kernels.testing import clustered_features

Size = tuple[int, int, int, int, int]  # windows, heads, tokens, head_dim, keys per query
CPU_SIZES: tuple[Size, ...] = (
    (64, 2, 64, 32, 32),  # small windows of a restoration network
    (4, 6, 256, 32, 64),
    (1, 6, 1024, 32, 128),
    (1, 6, 1024, 30, 128),  # 180 channels in six heads: no power of two
    (1, 6, 1024, 32, 512),
    (1, 6, 4096, 32, 64),
    (1, 6, 4096, 32, 128),
    (1, 2, 16384, 64, 64),
)
QUICK_SIZES = CPU_SIZES[:3]
# 65536 tokens each, as in a training batch of large crops, then single windows
CUDA_SIZES: tuple[Size, ...] = (
    (256, 6, 256, 32, 64),
    (64, 6, 1024, 32, 128),
    (64, 6, 1024, 30, 128),
    (64, 6, 1024, 32, 512),
    (16, 6, 4096, 32, 128),
    (4, 6, 16384, 32, 64),
    (4, 4, 16384, 64, 256),
    (1, 6, 256, 32, 64),
    (1, 6, 1024, 32, 128),
    (1, 6, 4096, 32, 128),
)
# those that may compete with the one auto takes; on CPUs sdpa is the float mask of the peers
_BACKENDS: dict[bool, tuple[Backend, ...]] = {
    False: ("native", "csr", "chunked"),
    True: ("triton", "sdpa", "chunked"),
}
_FLEX_SIZE = (1024, 128)  # tokens and keys of the one size at which FlexAttention is compiled
_SLICE = 1 << 25  # gathered elements that the reference holds at once
_CPU_PAIRS = 1 << 28  # query-key pairs per window above which dense scores do not fit beside the rest


def attention_cases(device: torch.device, *, quick: bool = False, flex: bool = False) -> list[Case]:
    """Return the cases of ``knn_attention``.

    Args:
        device: Device of the inputs; sizes and dtype depend on it, fp32 on CPUs and bf16 on GPUs.
        quick: Small sizes only.
        flex: Whether FlexAttention takes part on a CPU, where compiling it takes minutes.
    """
    is_gpu = device.type == "cuda"
    sizes = CUDA_SIZES if is_gpu else CPU_SIZES
    if quick:
        sizes = (CUDA_SIZES[1], *CUDA_SIZES[-2:]) if is_gpu else QUICK_SIZES
    return [_case(size, is_gpu, flex or is_gpu) for size in sizes]


def size_name(size: Size) -> str:
    """Return the name of an attention size."""
    B, heads, N, head_dim, k = size
    return f"B{B} H{heads} N{N} d{head_dim} k{k}"


def least_work(size: Size, itemsize: int) -> tuple[dict[Mode, float], dict[Mode, float]]:
    """Return unavoidable operations and bytes by mode: two products forward, five backward."""
    B, heads, N, head_dim, k = size
    pairs, rows, lists = B * heads * N * k * head_dim, B * heads * N * head_dim, 4.0 * B * N * k
    flop: dict[Mode, float] = {"forward": 4.0 * pairs, "backward": 10.0 * pairs, "both": 14.0 * pairs}
    traffic: dict[Mode, float] = {
        "forward": 4.0 * rows * itemsize + lists,
        "backward": 8.0 * rows * itemsize + lists,
        "both": 12.0 * rows * itemsize + lists,
    }
    return flop, traffic


def gather_attention(q: Tensor, k: Tensor, v: Tensor, index: Tensor) -> Tensor:
    """Attend to listed keys by copying them out: the way one writes it first.

    Args:
        q: ``(B, heads, N, head_dim)``.
        k: ``(B, heads, M, head_dim)``.
        v: ``(B, heads, M, head_dim)``.
        index: ``(B, N, K)``, int64, no unused slots.

    Returns:
        ``(B, heads, N, head_dim)``, computed in the dtype of the inputs.
    """
    B, heads, _, head_dim = q.shape
    flat = index.flatten(1)[:, None, :, None].expand(B, heads, -1, head_dim)
    keys = k.gather(2, flat).unflatten(2, index.shape[1:])  # (B, heads, N, K, head_dim)
    values = v.gather(2, flat).unflatten(2, index.shape[1:])  # (B, heads, N, K, head_dim)
    logits = keys @ q.unsqueeze(-1) * head_dim**-0.5  # (B, heads, N, K, 1)
    weights = logits.squeeze(-1).softmax(dim=-1)  # (B, heads, N, K)
    return (weights.unsqueeze(-2) @ values).squeeze(-2)  # (B, heads, N, head_dim)


def gather_reference(inputs: Inputs) -> dict[str, Tensor]:
    """Run :func:`gather_attention` and its backward some queries at a time."""
    q, k, v = (inputs.leaves[name].detach() for name in "qkv")
    index = inputs.shared.index.long()
    B, heads, N, head_dim = q.shape
    rows = max(1, _SLICE // (B * heads * index.shape[-1] * head_dim))
    output, gradients = torch.empty_like(q), [torch.zeros_like(x) for x in (q, k, v)]
    if inputs.grad_output is None:
        raise ValueError("inputs must have a grad_output")
    for start in range(0, N, rows):
        part = slice(start, start + rows)
        leaves = tuple(x.clone().requires_grad_() for x in (q[:, :, part], k, v))
        out = gather_attention(leaves[0], leaves[1], leaves[2], index[:, part])
        output[:, :, part] = out.detach()
        dq, dk, dv = torch.autograd.grad(out, leaves, inputs.grad_output[:, :, part])
        gradients[0][:, :, part] = dq
        gradients[1] += dk
        gradients[2] += dv
    return {"output": output, **dict(zip("qkv", gradients, strict=True))}


def make_attention_inputs(size: Size, seed: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Draw queries, keys, values and a dictionary of clustered features."""
    B, heads, N, head_dim, k = size
    generator = torch.Generator().manual_seed(seed)
    *leaves, grad_output = (
        torch.randn(B, heads, N, head_dim, generator=generator).to(device, dtype) for _ in range(4)
    )
    features = clustered_features(N, B=B, seed=seed).to(device)
    dictionary = knn_dictionary(features, k, similarity="cosine", backend="topk")
    return Inputs(
        {name: x.requires_grad_() for name, x in zip("qkv", leaves, strict=True)}, dictionary, grad_output
    )


def _case(size: Size, is_gpu: bool, flex: bool) -> Case:
    dtype = torch.bfloat16 if is_gpu else torch.float32
    flop, traffic = least_work(size, dtype.itemsize)
    contenders = [
        Contender("auto", "auto", partial(_ours, "auto"), fresh_dictionary, describe=_chosen),
        *(_backend(name) for name in _BACKENDS[is_gpu]),
        Contender(
            "gather",
            "peer",
            lambda x, index: gather_attention(x["q"], x["k"], x["v"], index),
            _index,
            _why_not_gather,
        ),
        Contender("SDPA, boolean mask", "peer", _sdpa, boolean_mask),
        Contender("SDPA, float mask", "peer", _sdpa, float_mask),
        Contender(
            "masked softmax", "peer", _masked_softmax, lambda inputs: ~boolean_mask(inputs), _why_not_dense
        ),
    ]
    if flex and (size[2], size[4]) == _FLEX_SIZE:
        contenders.append(_flex(size, trains=is_gpu))
    return Case(
        op="knn_attention",
        name=size_name(size),
        shape=dict(zip(("B", "heads", "N", "head_dim", "k"), size, strict=True)),
        dtype=dtype,
        make_inputs=partial(make_attention_inputs, size),
        contenders=tuple(contenders),
        reference=gather_reference,
        flop=flop,
        traffic=traffic,
        reduction=size[3] + size[4],
    )


def fresh_dictionary(inputs: Inputs) -> KNNDictionary:
    """Return the dictionary of the inputs without any form that an earlier call has built."""
    listed: KNNDictionary = inputs.shared
    return KNNDictionary(listed.index, listed.num_keys, is_full=listed.is_full)


def _ours(backend: Backend, leaves: Mapping[str, Tensor], dictionary: Any) -> Tensor:
    return knn_attention(leaves["q"], leaves["k"], leaves["v"], dictionary, backend=backend)


def _chosen(inputs: Inputs) -> str:
    leaves = inputs.leaves
    reasons = explain_backends("knn_attention", leaves["q"], leaves["k"], leaves["v"], inputs.shared)
    return next(name for name, reason in reasons.items() if reason is None)


def _backend(name: Backend) -> Contender:
    def why_not(inputs: Inputs) -> str | None:
        if _chosen(inputs) == name:
            return "is what auto runs"
        leaves = inputs.leaves
        reason = explain_backends("knn_attention", leaves["q"], leaves["k"], leaves["v"], inputs.shared)[name]
        # one that runs but that auto passes by is the very thing to compare with
        return reason if reason is not None and not reason.startswith("runs") else None

    return Contender(f"backend {name}", "backend", partial(_ours, name), fresh_dictionary, why_not)


def _index(inputs: Inputs) -> Tensor:
    return inputs.shared.index.long()


def boolean_mask(inputs: Inputs) -> Tensor:
    """Return ``(B, 1, N, N)``, true where listed."""
    index = inputs.shared.index
    mask = torch.zeros(*index.shape[:2], inputs.shared.num_keys, dtype=torch.bool, device=index.device)
    return mask.scatter_(-1, index.long(), True).unsqueeze(1)


def float_mask(inputs: Inputs) -> Tensor:
    """Return ``(B, 1, N, N)``, 0 where listed, else minus infinity, in the dtype of the queries."""
    index, dtype = inputs.shared.index, inputs.leaves["q"].dtype
    mask = torch.full(
        (*index.shape[:2], inputs.shared.num_keys), float("-inf"), dtype=dtype, device=index.device
    )
    return mask.scatter_(-1, index.long(), 0.0).unsqueeze(1)


def _sdpa(leaves: Mapping[str, Tensor], mask: Any) -> Tensor:
    return F.scaled_dot_product_attention(leaves["q"], leaves["k"], leaves["v"], attn_mask=mask)


def _masked_softmax(leaves: Mapping[str, Tensor], forbidden: Any) -> Tensor:
    q, k, v = leaves["q"], leaves["k"], leaves["v"]
    logits = (q @ k.mT) * q.shape[-1] ** -0.5  # (B, heads, N, N)
    return logits.masked_fill(forbidden, float("-inf")).softmax(dim=-1) @ v


def _why_not_gather(inputs: Inputs) -> str | None:
    q = inputs.leaves["q"]
    if q.device.type == "cpu" and q.shape[2] > 4096:
        return "too slow to wait for"
    return None


def _why_not_dense(inputs: Inputs) -> str | None:
    q = inputs.leaves["q"]
    if q.device.type == "cpu" and q.shape[1] * q.shape[2] ** 2 > _CPU_PAIRS:
        scores = q.shape[0] * q.shape[1] * q.shape[2] ** 2 * q.element_size()
        return f"would hold {scores / 2**30:.0f} GiB of scores several times"
    return None


def _flex(size: Size, *, trains: bool) -> Contender:
    # private to one contender, so that its graph is compiled for one shape
    compiled: list[Callable[..., Tensor]] = []

    def prepare(inputs: Inputs) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if not compiled:
            compiled.append(torch.compile(flex_attention, dynamic=False))
        allowed = boolean_mask(inputs).squeeze(1)
        N = allowed.shape[-1]

        def listed(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return allowed[b, query, key]

        return create_block_mask(listed, allowed.shape[0], None, N, N, device=allowed.device.type)

    def run(leaves: Mapping[str, Tensor], blocks: Any) -> Tensor:
        return compiled[0](leaves["q"], leaves["k"], leaves["v"], block_mask=blocks)

    def why_not(inputs: Inputs) -> str | None:
        head_dim = size[3]
        return (
            None
            if head_dim & (head_dim - 1) == 0
            else "a head_dim that is no power of two is not compiled here"
        )

    return Contender("FlexAttention", "peer", run, prepare, why_not, trains=trains)
