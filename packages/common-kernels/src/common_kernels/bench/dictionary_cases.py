# SPDX-License-Identifier: Apache-2.0
"""``knn_dictionary`` alone, its selection, and together with the layers that share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels import KNNDictionary, explain_backends, knn_attention, knn_dictionary
from common_kernels._native import why_no_native
from common_kernels.bench.attention_cases import (
    Size,
    boolean_mask,
    float_mask,
    gather_reference,
    least_work,
    make_attention_inputs,
    size_name,
)
from common_kernels.bench.case import Case, Contender, Inputs, Mode
from common_kernels.testing import clustered_features

_CHANNELS = 192
_STAGE_MODES: tuple[Mode, ...] = ("forward", "both")
# windows, tokens, keys per token
_CPU_SIZES = ((64, 64, 32), (8, 256, 64), (2, 1024, 128), (2, 1024, 512), (1, 4096, 64))
_CUDA_SIZES = (
    (256, 256, 64),
    (64, 1024, 128),
    (64, 1024, 512),
    (16, 4096, 128),
    (4, 16384, 64),
    (1, 1024, 128),
)
_CPU_SELECTIONS = ((8, 256, 64), (2, 1024, 128), (2, 1024, 512), (1, 4096, 64))
_CPU_STAGES: tuple[Size, ...] = ((4, 6, 256, 32, 64), (1, 6, 1024, 32, 128))
_CUDA_STAGES: tuple[Size, ...] = ((256, 6, 256, 32, 64), (64, 6, 1024, 32, 128))


def dictionary_cases(device: torch.device, *, quick: bool = False) -> list[Case]:
    """Return the cases of ``knn_dictionary`` by dot product."""
    is_gpu = device.type == "cuda"
    sizes = _CUDA_SIZES if is_gpu else _CPU_SIZES
    return [
        _case(*size, torch.bfloat16 if is_gpu else torch.float32) for size in (sizes[1:3] if quick else sizes)
    ]


def _case(B: int, N: int, k: int, dtype: torch.dtype) -> Case:
    return Case(
        op="knn_dictionary",
        name=f"B{B} N{N} C{_CHANNELS} k{k}",
        shape={"B": B, "N": N, "C": _CHANNELS, "k": k},
        dtype=dtype,
        make_inputs=partial(_make_inputs, B, N, k),
        contenders=(
            Contender("auto", "auto", partial(_ours, "auto"), describe=_chosen),
            Contender("backend topk", "backend", partial(_ours, "topk"), why_not=_why_not_topk),
            Contender("matmul, sorted top-k", "peer", partial(_matmul_topk, True)),
            Contender("matmul, unsorted top-k", "peer", partial(_matmul_topk, False)),
            Contender("matmul alone", "part", lambda x, _: _product(x), is_same=False),
        ),
        reference=_best_similarities,
        comparable=_chosen_similarities,
        modes=("forward",),
        flop={"forward": 2.0 * B * N * N * _CHANNELS},
        traffic={"forward": B * N * (_CHANNELS * dtype.itemsize + 4.0 * k)},
        reduction=_CHANNELS,
    )


def _make_inputs(B: int, N: int, k: int, seed: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    return Inputs({"x": clustered_features(N, _CHANNELS, B=B, seed=seed).to(device, dtype)}, k)


def _ours(backend: Any, leaves: Mapping[str, Tensor], k: Any) -> Tensor:
    return knn_dictionary(leaves["x"], k, force_self=False, backend=backend).index


def _matmul_topk(is_sorted: bool, leaves: Mapping[str, Tensor], k: Any) -> Tensor:
    return _product(leaves).topk(k, dim=-1, sorted=is_sorted).indices


def _product(leaves: Mapping[str, Tensor]) -> Tensor:
    x = leaves["x"].float()
    return x @ x.mT


def _chosen(inputs: Inputs) -> str:
    reasons = explain_backends("knn_dictionary", inputs.leaves["x"], inputs.shared, force_self=False)
    return next(name for name, reason in reasons.items() if reason is None)


def _why_not_topk(inputs: Inputs) -> str | None:
    return "is what auto runs" if _chosen(inputs) == "topk" else None


def _similarities(inputs: Inputs) -> Tensor:
    x = inputs.leaves["x"].detach().double()
    return x @ x.mT  # (B, N, N)


def _best_similarities(inputs: Inputs) -> dict[str, Tensor]:
    return {"output": _similarities(inputs).topk(inputs.shared, dim=-1).values}


def _chosen_similarities(inputs: Inputs, index: Tensor) -> Tensor:
    return _look_up(_similarities(inputs), index)


def _look_up(scores: Tensor, index: Tensor) -> Tensor:
    """Look up what was chosen: order and choices among near-ties are free, a key listed twice is not."""
    ordered = index.long().sort(dim=-1).values
    repeated = F.pad(ordered[..., 1:] == ordered[..., :-1], (1, 0))
    found = scores.gather(-1, ordered).masked_fill(repeated, float("nan"))
    return found.sort(dim=-1, descending=True).values


def selection_cases(device: torch.device, *, quick: bool = False) -> list[Case]:
    """Return cases of the compiled selection: the ``k`` greatest of every row of given scores; CPUs only."""
    if device.type == "cuda":
        return []
    return [_selection(*size) for size in (_CPU_SELECTIONS[1:2] if quick else _CPU_SELECTIONS)]


def _selection(B: int, N: int, k: int) -> Case:
    return Case(
        op="selection",
        name=f"B{B} N{N} k{k}",
        shape={"B": B, "N": N, "k": k},
        dtype=torch.float32,
        make_inputs=partial(_make_scores, B, N, k),
        contenders=(
            Contender(
                "auto", "auto", _select, why_not=lambda _: why_no_native(), describe=lambda _: "native"
            ),
            *(
                Contender(f"torch.topk, {word}", "peer", partial(_torch_topk, word == "sorted"))
                for word in ("sorted", "unsorted")
            ),
        ),
        reference=lambda inputs: {"output": inputs.leaves["x"].topk(inputs.shared, dim=-1).values},
        comparable=lambda inputs, index: _look_up(inputs.leaves["x"].detach().double(), index),
        modes=("forward",),
        flop={"forward": 0.0},
        traffic={"forward": 4.0 * B * N * (N + k)},
    )


def _make_scores(B: int, N: int, k: int, seed: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    return Inputs({"x": _product(_make_inputs(B, N, k, seed, device, dtype).leaves)}, k)


def _select(leaves: Mapping[str, Tensor], k: Any) -> Tensor:
    x = leaves["x"]
    nothing = x.new_empty(0)
    return torch.ops.common_kernels.select_native(x, nothing, nothing.long(), k, 0, 0, False)


def _torch_topk(is_sorted: bool, leaves: Mapping[str, Tensor], k: Any) -> Tensor:
    return leaves["x"].topk(k, dim=-1, sorted=is_sorted).indices


def stage_cases(device: torch.device, *, quick: bool = False) -> list[Case]:
    """Return cases of a whole stage: one dictionary and the 2 or 6 attention layers that share it."""
    is_gpu = device.type == "cuda"
    sizes = _CUDA_STAGES if is_gpu else _CPU_STAGES
    dtype = torch.bfloat16 if is_gpu else torch.float32
    return [_stage(size, layers, dtype) for size in (sizes[:1] if quick else sizes) for layers in (2, 6)]


def _stage(size: Size, layers: int, dtype: torch.dtype) -> Case:
    B, _, N, _, k = size
    flop, traffic = least_work(size, dtype.itemsize)
    build = 2.0 * B * N * N * _CHANNELS
    return Case(
        op="stage",
        name=f"{size_name(size)}, {layers} layers",
        shape={**dict(zip(("B", "heads", "N", "head_dim", "k"), size, strict=True)), "layers": layers},
        dtype=dtype,
        make_inputs=partial(_make_stage, size),
        contenders=(
            Contender("auto", "auto", partial(_auto_stage, layers, k)),
            Contender(
                "top-k, SDPA, boolean mask", "peer", partial(_peer_stage, layers, k, boolean_mask, _sdpa)
            ),
            Contender("top-k, SDPA, float mask", "peer", partial(_peer_stage, layers, k, float_mask, _sdpa)),
            Contender(
                "auto, dictionary given", "part", partial(_layers, layers), lambda inputs: inputs.shared[1]
            ),
        ),
        reference=partial(_stage_reference, layers),
        modes=_STAGE_MODES,
        flop={mode: layers * flop[mode] + build for mode in _STAGE_MODES},
        traffic={mode: layers * traffic[mode] for mode in _STAGE_MODES},
        reduction=size[3] + size[4],
    )


def _make_stage(size: Size, seed: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    B, _, N, _, k = size
    inputs = make_attention_inputs(size, seed, device, dtype)
    features = clustered_features(N, _CHANNELS, B=B, seed=seed).to(device, dtype)
    dictionary = knn_dictionary(features, k, force_self=False, backend="reference")
    return Inputs(inputs.leaves, (features, dictionary), inputs.grad_output)


def _stage_reference(layers: int, inputs: Inputs) -> dict[str, Tensor]:
    single = gather_reference(Inputs(inputs.leaves, inputs.shared[1], inputs.grad_output))
    return {name: layers * x for name, x in single.items()}


def _layers(layers: int, leaves: Mapping[str, Tensor], dictionary: Any) -> Tensor:
    return _sum(layers, lambda: knn_attention(leaves["q"], leaves["k"], leaves["v"], dictionary))


def _sum(layers: int, attend: Callable[[], Tensor]) -> Tensor:
    out = attend()
    for _ in range(layers - 1):
        out = out + attend()
    return out


def _auto_stage(layers: int, k: int, leaves: Mapping[str, Tensor], shared: Any) -> Tensor:
    return _layers(layers, leaves, knn_dictionary(shared[0], k, force_self=False))


Prepare = Callable[[Inputs], Tensor]
Attend = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def _peer_stage(
    layers: int, k: int, prepare: Prepare, attend: Attend, leaves: Mapping[str, Tensor], shared: Any
) -> Tensor:
    x = shared[0].float()
    index = (x @ x.mT).topk(k, dim=-1, sorted=False).indices
    listed = prepare(Inputs(dict(leaves), KNNDictionary(index, x.shape[1], is_full=True)))
    return _sum(layers, lambda: attend(leaves, listed))


def _sdpa(leaves: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(leaves["q"], leaves["k"], leaves["v"], attn_mask=mask)
