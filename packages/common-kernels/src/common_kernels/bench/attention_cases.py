# SPDX-License-Identifier: Apache-2.0
"""``knn_attention`` beside what torch alone offers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels import Backend, KNNDictionary, explain_backends, knn_attention, knn_dictionary
from common_kernels._native import instruction_sets, use_instruction_set
from common_kernels.bench.case import Case, Contender, Inputs, Mode
from common_kernels.bench.flex import cluster_order, flex_attention_contender
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
BIAS_SIZE: Size = (1, 6, 1024, 32, 128)  # every configuration of the paper adds a trained bias to the logits
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
# what a block-sparse peer gains most from, and where lists share nothing
Tokens = Literal["raster", "reordered", "unclustered"]
_CUDA_TOKENS: dict[Tokens, tuple[Size, ...]] = {
    "reordered": (CUDA_SIZES[1], *CUDA_SIZES[4:7]),
    "unclustered": (CUDA_SIZES[1], CUDA_SIZES[4]),
}
_MEMORY_TOKENS = 16384
# those that may compete with the one auto takes; on CPUs sdpa is the float mask of the peers
_BACKENDS: dict[bool, tuple[Backend, ...]] = {
    False: ("native", "csr", "chunked"),
    True: ("triton", "sdpa", "chunked"),
}
_TYPICAL = (1024, 128)  # tokens and keys of the size at which FlexAttention and instruction sets compete
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
    cases = [_case(size, is_gpu, flex=flex or is_gpu) for size in sizes]
    if quick:
        return cases
    for tokens, others in _CUDA_TOKENS.items() if is_gpu else ():
        cases += [_case(size, is_gpu, flex=True, tokens=tokens) for size in others]
    return [*cases, _case(BIAS_SIZE, is_gpu, with_bias=True)]


def memory_cases(device: torch.device) -> list[Case]:
    """Return a grid of window sizes and list lengths, 16384 tokens each, for the table of memory.

    There are none for CPUs.
    """
    if device.type != "cuda":
        return []
    cases: list[Case] = []
    modes: tuple[Mode, ...] = ("forward", "both")
    for N, k in itertools.product((256, 1024, 4096, 16384), (16, 64, 256)):
        case = _case((_MEMORY_TOKENS // N, 6, N, 32, k), True)
        kept = tuple(c for c in case.contenders if c.kind in ("auto", "peer"))
        flop, traffic = ({mode: table[mode] for mode in modes} for table in (case.flop, case.traffic))
        case = replace(case, op="memory", name=f"N{N} k{k}", contenders=kept)
        cases.append(replace(case, modes=modes, flop=flop, traffic=traffic))
    return cases


def size_name(size: Size) -> str:
    """Return the name of an attention size."""
    B, heads, N, head_dim, k = size
    return f"B{B} H{heads} N{N} d{head_dim} k{k}"


def least_work(
    size: Size, itemsize: int, *, with_bias: bool = False
) -> tuple[dict[Mode, float], dict[Mode, float]]:
    """Return unavoidable operations and bytes by mode: two products forward, five backward.

    Of a bias the listed entries are read, and its gradient is written whole.
    """
    B, heads, N, head_dim, k = size
    pairs, rows, lists = B * heads * N * k * head_dim, B * heads * N * head_dim, 4.0 * B * N * k
    read, written = (itemsize * heads * N * k, itemsize * heads * N * N) if with_bias else (0, 0)
    flop: dict[Mode, float] = {"forward": 4.0 * pairs, "backward": 10.0 * pairs, "both": 14.0 * pairs}
    traffic: dict[Mode, float] = {
        "forward": 4.0 * rows * itemsize + lists + read,
        "backward": 8.0 * rows * itemsize + lists + read + written,
        "both": 12.0 * rows * itemsize + lists + 2 * read + written,
    }
    return flop, traffic


def gather_attention(q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attend to listed keys by copying them out: the way one writes it first.

    Args:
        q: ``(B, heads, N, head_dim)``.
        k: ``(B, heads, M, head_dim)``.
        v: ``(B, heads, M, head_dim)``.
        index: ``(B, N, K)``, int64, no unused slots.
        bias: ``(heads, N, M)``, added to the logits, or ``None``.

    Returns:
        ``(B, heads, N, head_dim)``, computed in the dtype of the inputs.
    """
    B, heads, _, head_dim = q.shape
    flat = index.flatten(1)[:, None, :, None].expand(B, heads, -1, head_dim)
    keys = k.gather(2, flat).unflatten(2, index.shape[1:])  # (B, heads, N, K, head_dim)
    values = v.gather(2, flat).unflatten(2, index.shape[1:])  # (B, heads, N, K, head_dim)
    logits = (keys @ q.unsqueeze(-1)).squeeze(-1) * head_dim**-0.5  # (B, heads, N, K)
    if bias is not None:
        logits = logits + bias.expand(B, -1, -1, -1).gather(-1, index.unsqueeze(1).expand_as(logits))
    weights = logits.softmax(dim=-1)  # (B, heads, N, K)
    return (weights.unsqueeze(-2) @ values).squeeze(-2)  # (B, heads, N, head_dim)


def gather_reference(inputs: Inputs) -> dict[str, Tensor]:
    """Run :func:`gather_attention` and its backward some queries at a time."""
    whole = {name: x.detach() for name, x in inputs.leaves.items()}
    index = inputs.shared.index.long()
    B, heads, N, head_dim = whole["q"].shape
    rows = max(1, _SLICE // (B * heads * index.shape[-1] * head_dim))
    output, gradients = torch.empty_like(whole["q"]), {name: torch.zeros_like(x) for name, x in whole.items()}
    if inputs.grad_output is None:
        raise ValueError("inputs must have a grad_output")
    for start in range(0, N, rows):
        part = slice(start, start + rows)
        # axis 2 of queries and axis 1 of the bias count queries, those of keys and values do not
        place = {"q": (..., part, slice(None)), "bias": (..., part, slice(None))}
        leaves = {name: x[place.get(name, ...)].clone().requires_grad_() for name, x in whole.items()}
        out = gather_attention(leaves["q"], leaves["k"], leaves["v"], index[:, part], leaves.get("bias"))
        output[:, :, part] = out.detach()
        found = torch.autograd.grad(out, [*leaves.values()], inputs.grad_output[:, :, part])
        for name, gradient in zip(leaves, found, strict=True):
            gradients[name][place.get(name, ...)] += gradient
    return {"output": output, **gradients}


def make_attention_inputs(
    size: Size,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    with_bias: bool = False,
    tokens: Tokens = "raster",
) -> Inputs:
    """Draw queries, keys, values, a bias if asked for, and a dictionary of features.

    ``"raster"`` tokens have clustered features in the order of an image, ``"reordered"`` ones the same in the
    order of their clusters, and those of ``"unclustered"`` ones are independent.
    """
    B, heads, N, head_dim, k = size
    generator = torch.Generator().manual_seed(seed)
    *leaves, grad_output = (
        torch.randn(B, heads, N, head_dim, generator=generator).to(device, dtype) for _ in range(4)
    )
    features = clustered_features(N, B=B, seed=seed)
    if tokens == "reordered":
        features = features.gather(1, cluster_order(features).unsqueeze(-1).expand_as(features))
    elif tokens == "unclustered":
        features = torch.randn(features.shape, generator=generator)
    dictionary = knn_dictionary(features.to(device), k, similarity="cosine", backend="topk")
    named = dict(zip("qkv", leaves, strict=True))
    if with_bias:
        named["bias"] = torch.randn(heads, N, N, generator=generator).to(device, dtype)
    return Inputs({name: x.requires_grad_() for name, x in named.items()}, dictionary, grad_output)


def _case(
    size: Size, is_gpu: bool, *, flex: bool = False, with_bias: bool = False, tokens: Tokens = "raster"
) -> Case:
    dtype = torch.bfloat16 if is_gpu else torch.float32
    flop, traffic = least_work(size, dtype.itemsize, with_bias=with_bias)
    contenders = [
        Contender("auto", "auto", partial(_ours, "auto"), fresh_dictionary, describe=_chosen),
        *(_backend(name) for name in _BACKENDS[is_gpu]),
        Contender(
            "gather",
            "peer",
            lambda x, index: gather_attention(x["q"], x["k"], x["v"], index, x.get("bias")),
            _index,
            _why_not_gather,
        ),
        Contender("SDPA, boolean mask", "peer", _sdpa, boolean_mask),
        Contender("SDPA, float mask", "peer", _sdpa, float_mask),
        Contender(
            "masked softmax", "peer", _masked_softmax, lambda inputs: ~boolean_mask(inputs), _why_not_dense
        ),
    ]
    is_typical = (size[2], size[4]) == _TYPICAL
    if flex and not with_bias and (is_gpu or is_typical):
        contenders.append(flex_attention_contender(size[3], trains=is_gpu))
    if is_typical and not with_bias:
        contenders += [] if is_gpu else [_by_instruction_set(name) for name in instruction_sets()[1:]]
    if size[2] <= 64 and not with_bias:  # so few keys that a list may not pay at all
        contenders.append(
            Contender("SDPA, no mask", "part", lambda x, _: _sdpa(x, None), lambda _: None, is_same=False)
        )
    names = ("B", "heads", "N", "head_dim", "k")
    variant = [*(["bias"] if with_bias else []), *([tokens] if tokens != "raster" else [])]
    return Case(
        op="knn_attention",
        name=", ".join([size_name(size), *variant]),
        shape=dict(zip(names, size, strict=True)) | dict.fromkeys(variant, 1),
        dtype=dtype,
        make_inputs=partial(make_attention_inputs, size, with_bias=with_bias, tokens=tokens),
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
    bias = leaves.get("bias")
    return knn_attention(leaves["q"], leaves["k"], leaves["v"], dictionary, bias=bias, backend=backend)


def _reasons(inputs: Inputs) -> dict[str, str | None]:
    x = inputs.leaves
    return explain_backends("knn_attention", x["q"], x["k"], x["v"], inputs.shared, bias=x.get("bias"))


def _chosen(inputs: Inputs) -> str:
    return next(name for name, reason in _reasons(inputs).items() if reason is None)


def _by_instruction_set(name: str) -> Contender:
    def run(leaves: Mapping[str, Tensor], dictionary: Any) -> Tensor:
        with use_instruction_set(name):
            return _ours("native", leaves, dictionary)

    # the backward of a graph would run with another set
    return Contender(f"native, {name}", "part", run, fresh_dictionary, trains=False)


def _backend(name: Backend) -> Contender:
    def why_not(inputs: Inputs) -> str | None:
        if _chosen(inputs) == name:
            return "is what auto runs"
        reason = _reasons(inputs)[name]
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
    bias = leaves.get("bias")
    if bias is not None:  # trained, so that it is added anew in each call
        mask = bias.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else bias + mask
    return F.scaled_dot_product_attention(leaves["q"], leaves["k"], leaves["v"], attn_mask=mask)


def _masked_softmax(leaves: Mapping[str, Tensor], forbidden: Any) -> Tensor:
    q, k, v = leaves["q"], leaves["k"], leaves["v"]
    logits = (q @ k.mT) * q.shape[-1] ** -0.5  # (B, heads, N, N)
    logits = logits + leaves["bias"] if "bias" in leaves else logits
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
