# SPDX-License-Identifier: Apache-2.0
"""``fuse_phase`` beside the formula by angles that one writes first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from common_kernels import explain_backends, fuse_phase
from common_kernels.bench.case import Case, Contender, Inputs

_CHANNELS = 4  # of latents
# images, side in pixels of the latents
_SIZES = ((1, 64), (1, 96), (1, 128), (16, 128))
_MOST_TURN = 0.9 * math.pi


def phase_cases(device: torch.device, *, quick: bool = False) -> list[Case]:
    """Return the cases of ``fuse_phase``, all in fp32."""
    sizes = (*_SIZES, (64, 128)) if device.type == "cuda" else _SIZES
    return [_case(*size, device.type == "cuda") for size in sizes if not quick or size[1] != 96]


def _case(B: int, side: int, is_gpu: bool) -> Case:
    pixels = B * _CHANNELS * side**2
    transforms = 3 * 2.5 * pixels * math.log2(side**2)
    return Case(
        op="fuse_phase",
        name=f"B{B} C{_CHANNELS} {side}x{side}",
        shape={"B": B, "C": _CHANNELS, "H": side, "W": side},
        dtype=torch.float32,
        make_inputs=partial(_make_inputs, B, side),
        contenders=(
            Contender("auto", "auto", partial(_ours, "auto"), describe=_chosen),
            Contender(
                "backend phasor", "backend", partial(_ours, "phasor"), why_not=partial(_same, "phasor")
            ),
            Contender("angles", "peer", lambda x, _: by_angles(x["x"], x["guidance"])),
            Contender("backend reference", "backend", partial(_ours, "reference")),
            Contender("transforms alone", "part", lambda x, _: _transforms(x), is_same=False),
            *([Contender("auto, CUDA graph", "part", _replay, _capture)] if is_gpu else []),
        ),
        reference=lambda inputs: {"output": by_angles(inputs.leaves["x"], inputs.leaves["guidance"])},
        modes=("forward",),
        flop={"forward": transforms},
        traffic={"forward": 3.0 * 4 * pixels},
        reduction=side**2,
    )


def by_angles(x: Tensor, guidance: Tensor) -> Tensor:
    """Mix the phases of two images half and half by sines and cosines of their angles.

    Args:
        x: ``(..., H, W)``; its amplitudes are kept.
        guidance: The same shape.
    """
    spectrum, guide = torch.fft.rfft2(x, norm="ortho"), torch.fft.rfft2(guidance, norm="ortho")
    angle, other = spectrum.angle(), guide.angle()
    mean = torch.atan2(angle.sin() + other.sin(), angle.cos() + other.cos())
    mixed = spectrum.abs() * torch.exp(1j * mean)
    return torch.fft.irfft2(mixed, s=x.shape[-2:], norm="ortho")


def _transforms(leaves: Mapping[str, Tensor]) -> Tensor:
    spectrum, _ = (torch.fft.rfft2(leaves[name], norm="ortho") for name in ("x", "guidance"))
    return torch.fft.irfft2(spectrum, s=leaves["x"].shape[-2:], norm="ortho")


def _capture(inputs: Inputs) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Record a call, which a replay then repeats on the same tensors without Python between its kernels."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        _ours("auto", inputs.leaves, None)  # compiles and plans outside the recording
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        output = _ours("auto", inputs.leaves, None)
    return graph, output


def _replay(leaves: Mapping[str, Tensor], recorded: Any) -> Tensor:
    graph, output = recorded
    graph.replay()
    return output


def _make_inputs(B: int, side: int, seed: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Draw an image and a guide whose phases differ by less than pi, where all formulas agree.

    Opposite phases have no mean, and which bins count as opposite depends on the precision.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, _CHANNELS, side, side, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.rfft2(x)
    turn = _MOST_TURN * (2 * torch.rand(spectrum.shape, generator=generator, dtype=torch.float64) - 1)
    turn[..., 0], turn[..., -1] = 0.0, 0.0  # these two columns mirror themselves
    amplitude = 0.5 + torch.rand(spectrum.shape, generator=generator, dtype=torch.float64)
    amplitude[..., 0], amplitude[..., -1] = 1.0, 1.0
    guidance = torch.fft.irfft2(spectrum * torch.polar(amplitude, turn), s=(side, side))
    return Inputs({"x": x.to(device, dtype), "guidance": guidance.to(device, dtype)})


def _ours(backend: Any, leaves: Mapping[str, Tensor], _: Any) -> Tensor:
    return fuse_phase(leaves["x"], leaves["guidance"], backend=backend)


def _chosen(inputs: Inputs) -> str:
    reasons = explain_backends("fuse_phase", inputs.leaves["x"], inputs.leaves["guidance"])
    return next(name for name, reason in reasons.items() if reason is None)


def _same(backend: str, inputs: Inputs) -> str | None:
    return "is what auto runs" if _chosen(inputs) == backend else None
