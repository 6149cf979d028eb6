# SPDX-License-Identifier: Apache-2.0
"""Helpers for testing operators: tolerances, inputs, poisoned memory, backends side by side.

Public, because the packages that build on these operators test theirs in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor

from common_kernels.ops.knn_dictionary import KNNDictionary

__all__ = [
    "AttentionInputs",
    "Layout",
    "adversarial_features",
    "assert_close_to_reference",
    "attention_inputs",
    "clustered_features",
    "compare_backends",
    "gaussian_features",
    "peak_bytes",
    "poisoned_empty",
    "random_dictionary",
    "relative_error",
    "rounding_allowance",
    "strided",
    "values_and_gradients",
]

Layout = Literal["gap", "transposed", "offset", "expanded"]


def rounding_allowance(dtype: torch.dtype, *, reduction: int = 1) -> float:
    """Return the relative l2 error that correct rounding may leave.

    Two roundings to ``dtype``, half a unit each (an intermediate and the store), and a sum kept in fp32 (fp64
    for fp64) whose errors add up like a random walk.

    Args:
        dtype: Precision of inputs and outputs.
        reduction: Terms of the longest sum.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.finfo(dtype).eps + 4 * torch.finfo(wide).eps * reduction**0.5


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Return ``|value - reference| / |reference|`` in the l2 norm, in fp64; NaN if either holds one.

    Raises:
        ValueError: If the shapes differ.
    """
    if value.shape != reference.shape:
        raise ValueError(
            f"value and reference must have one shape, got {tuple(value.shape)} and {tuple(reference.shape)}"
        )
    wide = reference.detach().double()
    norm = wide.norm().item()
    error = (value.detach().to(wide.device).double() - wide).norm().item()
    return error / norm if norm else error


def assert_close_to_reference(
    value: Tensor,
    reference: Tensor,
    *,
    eager: Tensor | None = None,
    name: str = "value",
    factor: float = 2.0,
    dtype: torch.dtype | None = None,
    reduction: int = 256,
) -> None:
    """Check a result against a float64 reference.

    A backend passes if its error is at most ``factor`` times that of eager torch in the same dtype, or within
    the allowance for rounding. NaN never passes.

    Args:
        value: What a backend computed, in its dtype.
        reference: The same in float64.
        eager: The same by eager torch in the dtype of ``value``.
        name: Name of the value in the message.
        factor: How much worse than eager is still right.
        dtype: Precision of the computation, if not that of ``value``.
        reduction: Terms of the longest sum, see :func:`rounding_allowance`.

    Raises:
        AssertionError: If the error is larger, with both figures and where they come from.
        ValueError: If the shapes differ.
    """
    error = relative_error(value, reference)
    rounding = rounding_allowance(dtype or value.dtype, reduction=reduction)
    eager_error = 0.0 if eager is None else relative_error(eager, reference)
    if not error <= max(factor * eager_error, rounding):
        beside = "" if eager is None else f", {factor:g} times eager's {eager_error:.2e}"
        raise AssertionError(
            f"{name}: relative error {error:.2e} against float64, allowed for rounding {rounding:.2e}{beside}"
        )


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """Arguments of an attention call.

    Attributes:
        q: ``(B, heads, N, head_dim)``.
        k: ``(B, heads, N, head_dim)``.
        v: ``(B, heads, N, head_dim)``.
        dictionary: The listed keys.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    dictionary: KNNDictionary


def attention_inputs(
    B: int,
    heads: int,
    N: int,
    head_dim: int,
    k: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    layout: Layout | None = None,
    padding: float = 0.0,
    requires_grad: bool = False,
) -> AttentionInputs:
    """Draw queries, keys, values and lists of ``k`` distinct random keys.

    Args:
        B: Windows.
        heads: Heads.
        N: Queries and keys of a window.
        head_dim: Channels per head.
        k: Keys per query, at most ``N``.
        seed: Random seed.
        dtype: Dtype of ``q``, ``k`` and ``v``.
        device: Device of all tensors.
        layout: How ``q``, ``k`` and ``v`` lie in memory, see :func:`strided`; contiguous if ``None``.
        padding: Share of slots marked unused; makes empty rows if large.
        requires_grad: Whether ``q``, ``k`` and ``v`` ask for gradients.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randn(B, heads, N, head_dim, generator=generator).to(device, dtype) for _ in range(3))
    q, keys, v = ((x if layout is None else strided(x, layout)).requires_grad_(requires_grad) for x in drawn)
    index = random_dictionary(B, N, k, padding=padding, seed=seed).index
    return AttentionInputs(q, keys, v, KNNDictionary.from_index(index.to(device), N))


def random_dictionary(
    B: int, N: int, k: int, *, num_keys: int | None = None, padding: float = 0.0, seed: int = 0
) -> KNNDictionary:
    """Draw lists of distinct keys, on the CPU.

    Args:
        B: Windows.
        N: Queries of a window.
        k: Slots per query, at most ``num_keys``.
        num_keys: Keys of a window; ``N`` if ``None``.
        padding: Share of slots marked unused; makes empty rows if large.
        seed: Random seed.
    """
    M = N if num_keys is None else num_keys
    generator = torch.Generator().manual_seed(seed)
    index = torch.rand(B, N, M, generator=generator).argsort(dim=-1)[..., :k]
    if padding:
        index = index.masked_fill(torch.rand(index.shape, generator=generator) < padding, -1)
    return KNNDictionary.from_index(index, M)


def strided(x: Tensor, layout: Layout) -> Tensor:
    """Return equal values in other memory, to find code that assumes contiguous rows.

    Args:
        x: At least two dimensions.
        layout: ``"gap"`` leaves every other element of the last axis unused, ``"transposed"`` swaps the
            strides of the last two axes, ``"offset"`` starts inside a larger storage, ``"expanded"`` has
            stride 0 along the first axis, where it repeats the first entry.
    """
    if layout == "gap":
        return torch.stack((x, torch.full_like(x, float("nan"))), dim=-1)[..., 0]
    if layout == "transposed":
        return x.mT.contiguous().mT
    if layout == "offset":
        return torch.cat((torch.full_like(x[:1], float("nan")), x))[1:]
    return x[:1].expand_as(x)


def gaussian_features(N: int, C: int = 75, *, seed: int = 0, B: int = 1) -> Tensor:
    """Draw ``(B, N, C)`` fp32 token features without any cluster, the hard case for block-sparse kernels."""
    return torch.randn(B, N, C, generator=torch.Generator().manual_seed(seed))


def adversarial_features(
    N: int, C: int = 75, *, kind: Literal["hub", "blocks", "ties"], B: int = 1
) -> Tensor:
    """Return ``(B, N, C)`` fp32 token features made to hurt.

    Args:
        N: Number of tokens.
        C: Channels, at least 2.
        kind: ``"hub"``: norms grow along the window, so that by dot product all rows list the same keys;
            ``"blocks"``: orthogonal groups that share no key; ``"ties"``: all tokens equal.
        B: Windows.
    """
    x = torch.zeros(B, N, C)
    if kind == "hub":
        x[..., 0] = torch.arange(1, N + 1)
    elif kind == "blocks":
        x.scatter_(-1, (torch.arange(N) * C // N).view(1, N, 1).expand(B, N, 1), 1.0)
    else:
        x.fill_(1.0)
    return x


def clustered_features(N: int, C: int = 75, *, seed: int = 0, B: int = 1) -> Tensor:
    """Draw token features that form clusters, as those of natural images do.

    Args:
        N: Number of tokens in a window, a square number.
        C: Channels.
        seed: Random seed.
        B: Windows.

    Returns:
        ``(B, N, C)`` fp32: a few smooth regions, each with a direction of its own, and some noise.

    Raises:
        ValueError: If ``N`` is not a square number.
    """
    side = round(N**0.5)
    if side * side != N:
        raise ValueError(f"N must be a square number, got {N}")
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(B, C, max(2, side // 8), max(2, side // 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)
    noise = 0.3 * torch.randn(B, C, side, side, generator=generator)
    return (smooth + noise).flatten(2).transpose(1, 2).contiguous()


@contextlib.contextmanager
def poisoned_empty() -> Generator[None, None, None]:
    """Fill what ``torch.empty`` and its kin return with NaN, so that an unwritten output shows."""

    def poisoning(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def poisoned(*args: object, **kwargs: object) -> Tensor:
            x = make(*args, **kwargs)
            return x.fill_(float("nan")) if x.is_floating_point() or x.is_complex() else x

        return poisoned

    with contextlib.ExitStack() as stack:
        for owner, name in (
            (torch, "empty"),
            (torch, "empty_like"),
            (Tensor, "new_empty"),
        ):
            stack.enter_context(mock.patch.object(owner, name, poisoning(getattr(owner, name))))
        yield


def values_and_gradients(
    function: Callable[..., Tensor], tensors: Mapping[str, Tensor], *, seed: int = 0
) -> dict[str, Tensor]:
    """Run a function and its backward on fresh leaves.

    Args:
        function: Function of the tensors, which it takes by name.
        tensors: Floating tensors; each gets a gradient.
        seed: Random seed of the gradient of the output.

    Returns:
        ``"output"`` and the gradient of each tensor by name.
    """
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    output = function(**leaves)
    grad_output = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    gradients = torch.autograd.grad(output, list(leaves.values()), grad_output.to(output))
    return {"output": output.detach(), **dict(zip(leaves, gradients, strict=True))}


def compare_backends(
    function: Callable[..., Tensor],
    backends: Sequence[str],
    tensors: Mapping[str, Tensor],
    *,
    reference: str = "reference",
    factor: float = 2.0,
) -> None:
    """Check values and every gradient of several backends against the reference in float64.

    Args:
        function: Function of the tensors, which it takes by name, and of ``backend``.
        backends: Names to check.
        tensors: Floating tensors of one dtype.
        reference: Backend that is the specification; in the dtype of the tensors it is also eager
            torch.
        factor: See :func:`assert_close_to_reference`.

    Raises:
        AssertionError: If one is off, naming backend and tensor.
    """

    def run(backend: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return values_and_gradients(lambda **x: function(**x, backend=backend), values)

    exact = run(reference, {name: x.double() for name, x in tensors.items()})
    eager = run(reference, tensors)
    for backend in backends:
        for name, value in run(backend, tensors).items():
            assert_close_to_reference(
                value, exact[name], eager=eager[name], name=f"{backend}: {name}", factor=factor
            )


def peak_bytes(function: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Return the most memory that a call held beyond what was held before it, in bytes.

    On the CPU every allocation of torch is counted exactly, through its profiler; on CUDA its allocator is
    asked.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        function()
    # the events of the table are net per operator; the raw ones show what an operator held in between
    results: Any = profiler.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    changes = [event for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return peak
