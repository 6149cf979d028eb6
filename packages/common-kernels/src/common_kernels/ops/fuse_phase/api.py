# SPDX-License-Identifier: Apache-2.0
"""Public call of the phase fusion."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from common_kernels._dispatch import Implementation, choose, explain
from common_kernels._triton import INTERPRETED, why_no_triton
from common_kernels.ops.fuse_phase.native import fuse_phase_native, not_auto_native, why_not_native
from common_kernels.ops.fuse_phase.phasor import fuse_phase_phasor, why_not_phasor
from common_kernels.ops.fuse_phase.reference import fuse_phase_reference

Mode = Literal["guarded", "reference"]


def _runs(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> None:
    """Plain torch: runs on every device and dtype."""


def _why_not_triton(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> str | None:
    if not guarded:
        return "reproduces the guarded mode only"
    if isinstance(weight, Tensor):
        return "needs a number as weight, got a tensor"
    if x.dtype != torch.float32:
        return f"needs float32 or less, got {x.dtype}"
    if torch.is_grad_enabled() and (x.requires_grad or guidance.requires_grad):
        return "has no backward, but an input requires grad"
    return why_no_triton(x)


def _not_auto_triton(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> str | None:
    return "the kernel is interpreted" if INTERPRETED else None


def _run_triton(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> Tensor:
    # pulls in triton, which not every machine has
    from common_kernels.ops.fuse_phase.triton import fuse_phase_triton

    return fuse_phase_triton(x, guidance, weight, guarded)


# in the order in which "auto" asks
IMPLEMENTATIONS = (
    Implementation("triton", _why_not_triton, _run_triton, _not_auto_triton),
    Implementation("native", why_not_native, fuse_phase_native, not_auto_native),
    Implementation("phasor", why_not_phasor, fuse_phase_phasor),
    Implementation("reference", _runs, fuse_phase_reference),
)


def fuse_phase(
    x: Tensor,
    guidance: Tensor,
    *,
    weight: float | Tensor = 0.5,
    mode: Mode = "guarded",
    backend: Literal["auto", "reference", "phasor", "native", "triton"] = "auto",
) -> Tensor:
    """Keep the amplitudes of one image and turn its phases toward those of another.

    Args:
        x: Image or latents, ``(..., H, W)``, any size, fp32, fp64, fp16 or bf16.
        guidance: Shape, dtype and device of ``x``; only its phases enter.
        weight: 0 keeps the phases of ``x``, 1 takes those of ``guidance``; a number in [0, 1], or a tensor
            that broadcasts against ``(..., H, W // 2 + 1)``, whose range is the caller's duty.
        mode: ``"guarded"`` leaves a bin of ``x`` as it is where the mean has no direction: a zero bin of
            either image, or opposite phases. ``"reference"`` follows the published code instead, where the
            mean brightness of a channel is lost whenever the two means differ in sign.
        backend: Implementation; ``"auto"`` takes the fastest that runs.

    Returns:
        Shape and dtype of ``x``; computed in fp32 (fp64 for fp64 input).

    Raises:
        TypeError: If the dtypes differ or are not floating.
        ValueError: If shapes or devices differ, a side is empty, or ``weight`` or ``mode`` is out of range.
        BackendUnavailableError: If the named backend cannot run this call.

    Example:
        >>> import torch
        >>> x = torch.arange(12.0).view(3, 4)
        >>> torch.allclose(fuse_phase(x, -x, weight=0.0), x, atol=1e-5)
        True

    Source: Pixelsmith, arXiv 2406.07251, Sec. 3 (averaging guidance), by the circular mean that its published
        code computes; the weight and the guard are ours.
    """
    arguments = _prepare(x, guidance, weight, mode)
    implementation = choose("fuse_phase", backend, IMPLEMENTATIONS, *arguments)
    if x.numel() == 0:  # torch 2.10's transforms refuse an empty batch
        return x.clone()
    return implementation.run(*arguments).to(x.dtype)


def explain_fuse_phase(
    x: Tensor, guidance: Tensor, *, weight: float | Tensor = 0.5, mode: Mode = "guarded"
) -> dict[str, str | None]:
    """Return each backend's reason against this call; ``auto`` takes the first ``None``."""
    return explain(IMPLEMENTATIONS, *_prepare(x, guidance, weight, mode))


def _prepare(
    x: Tensor, guidance: Tensor, weight: float | Tensor, mode: str
) -> tuple[Tensor, Tensor, float | Tensor, bool]:
    if not x.is_floating_point() or x.dtype != guidance.dtype:
        raise TypeError(f"x and guidance must have one floating dtype, got {x.dtype} and {guidance.dtype}")
    if x.shape != guidance.shape or x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(
            f"x and guidance must both be (..., H, W), got {tuple(x.shape)} and {tuple(guidance.shape)}"
        )
    if x.device != guidance.device:
        raise ValueError(f"x and guidance must be on one device, got {x.device} and {guidance.device}")
    if not isinstance(weight, Tensor) and not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], got {weight}")
    if mode not in ("guarded", "reference"):
        raise ValueError(f"mode must be 'guarded' or 'reference', got {mode!r}")
    if x.dtype != torch.float64:
        x, guidance = x.float(), guidance.float()
    return x, guidance, weight, mode == "guarded"
