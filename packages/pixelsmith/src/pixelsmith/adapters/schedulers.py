# SPDX-License-Identifier: Apache-2.0
"""Schedulers of diffusers as numbers: one step of a patch depends on nothing but that patch.

A scheduler object keeps a step counter and, for multistep solvers, the last predictions, so patches that
share it disturb each other. Here the object is asked once for its levels; every step is then an affine form

    clean_k  = p_k x + q_k output
    x_{k+1}  = u_k x + v_k clean_k + w_k clean_{k-1}

whose coefficients are computed in float64. Levels are pairs (a, b): a sample of level k is a_k z0 + b_k e.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

SUPPORTED = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
)


class Scheduler(Protocol):
    """The members of a scheduler of diffusers that are used."""

    config: Any
    timesteps: Tensor

    def set_timesteps(self, num_inference_steps: int | None = None, **kwargs: Any) -> None:
        """Set timesteps and noise levels."""
        ...


@dataclass(frozen=True, slots=True)
class _Row:
    """Coefficients of one step; ``raw`` and ``clipped`` weigh the clean prediction as it is and clipped."""

    clean_x: float
    clean_output: float
    next_x: float
    next_raw: float
    next_clipped: float
    next_previous: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm:
    """All steps of a solver, without state.

    Attributes:
        name: Class of the scheduler that it was read from.
        timesteps: Timesteps of the scheduler, one per step, as the network takes them.
        signal: Share of the clean latents at levels 0 to ``num_steps``.
        noise: Share of the noise at the same levels.
        input_scale: Factor of the network's input, by step.
        init_noise_sigma: Factor of the noise that text-to-image starts from.
        multistep: Whether a step needs the clean prediction of the step before.
        clip: Limit of the absolute value of clean predictions; ``None`` for no clipping.
        rows: Coefficients by step.
    """

    name: str
    timesteps: Tensor
    signal: tuple[float, ...]
    noise: tuple[float, ...]
    input_scale: tuple[float, ...]
    init_noise_sigma: float
    multistep: bool
    clip: float | None
    rows: tuple[_Row, ...]

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        return len(self.rows)

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """Return clean latents at the level on which a step begins.

        Args:
            clean: Clean latents, ``(..., h, w)``.
            noise: Standard normal, of the same shape.
            step: Number of the step from 0 to ``num_steps``; at the last the result is ``clean``.

        Returns:
            Shape and dtype of ``clean``.

        Raises:
            ValueError: If ``step`` is out of range.
        """
        if not 0 <= step <= self.num_steps:
            raise ValueError(f"step must lie in [0, {self.num_steps}], got {step}")
        if step == self.num_steps:
            return clean
        mixed = _wide(clean) * self.signal[step] + _wide(noise) * self.noise[step]
        return mixed.to(clean.dtype)

    def initial(self, noise: Tensor) -> Tensor:
        """Return the initial latents of text-to-image: standard normal noise, scaled to the first level."""
        return (_wide(noise) * self.init_noise_sigma).to(noise.dtype)

    def scale_input(self, x: Tensor, step: int) -> Tensor:
        """Return the input of the network for ``x``."""
        scale = self.input_scale[step]
        return x if scale == 1 else (_wide(x) * scale).to(x.dtype)

    def clean(self, x: Tensor, output: Tensor, step: int) -> Tensor:
        """Return the clean latents that an output of the network implies, in at least float32."""
        row = self.rows[step]
        found = _wide(output) * row.clean_output
        return found if row.clean_x == 0 else found + _wide(x) * row.clean_x

    def advance(
        self, x: Tensor, output: Tensor, step: int, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Take one step.

        Args:
            x: Latents at the level of ``step``, ``(..., h, w)``.
            output: Output of the network, with guidance.
            step: Number of the step.
            previous: Clean prediction of the step before, for multistep solvers from the second step on.

        Returns:
            Latents at the next level in the dtype of ``x``, and for multistep solvers the clean prediction,
            else ``None``.

        Raises:
            ValueError: If a multistep solver lacks the prediction that it needs.
        """
        row = self.rows[step]
        raw = self.clean(x, output, step)
        clipped = raw if self.clip is None else raw.clamp(-self.clip, self.clip)
        result = _wide(x) * row.next_x + clipped * row.next_clipped
        if row.next_raw != 0:
            result = result + raw * row.next_raw
        if row.next_previous != 0:
            if previous is None:
                raise ValueError(f"step {step} of {self.name} needs the clean prediction of the step before")
            result = result + _wide(previous) * row.next_previous
        return result.to(x.dtype), raw.to(x.dtype) if self.multistep else None


def closed_form(
    scheduler: object,
    num_steps: int | None,
    *,
    mu: float | None = None,
    sigmas: Sequence[float] | None = None,
    timesteps: Sequence[float] | None = None,
) -> ClosedForm:
    """Read the closed form of a scheduler; the scheduler itself is not changed.

    Every step goes from one listed timestep to the next one, and the last to the final level, so all
    ``num_steps`` steps run whatever the spacing and offset, a last timestep of 0 included. (DDIM of diffusers
    subtracts a rounded constant instead, which misses the next listed timestep under ``"linspace"`` spacing,
    and under ``"trailing"`` where the steps do not divide the training steps. There the two differ.)

    Args:
        scheduler: DDIM, Euler (epsilon, v or sample prediction), flow-matching Euler, or DPM-Solver++ of
            first or second order, as diffusers has them.
        num_steps: Number of inference steps; ``None`` with ``sigmas`` or ``timesteps``.
        mu: Shift of a flow scheduler with dynamic shifting.
        sigmas: Custom noise levels, for schedulers that take them.
        timesteps: Custom timesteps, likewise.

    Raises:
        ValueError: If the scheduler, or an option of it, has no closed form; the message names a solution.
    """
    name = type(scheduler).__name__
    if name not in SUPPORTED:
        raise ValueError(
            f"scheduler must be one of {', '.join(SUPPORTED)}, whose steps do not depend on other patches, "
            f"got {name}; set pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config), or "
            "FlowMatchEulerDiscreteScheduler for a flow model"
        )
    own = cast(Scheduler, copy.deepcopy(scheduler))
    config = cast("Mapping[str, Any]", own.config)
    _refuse_options(name, config)
    if sigmas is not None and min(sigmas) <= 0:
        raise _noiseless(name, sigmas)
    given = {"mu": mu, "sigmas": sigmas, "timesteps": timesteps}
    chosen = {
        key: list(value) if isinstance(value, Sequence) else value
        for key, value in given.items()
        if value is not None
    }
    custom = sigmas is not None or timesteps is not None
    try:
        own.set_timesteps(None if custom else num_steps, **chosen)
    except TypeError as error:
        raise ValueError(f"{name} does not take custom {' or '.join(chosen)}") from error
    levels = _LEVELS[name](own, config)
    return _build(name, config, own.timesteps, levels)


@dataclass(frozen=True, slots=True)
class _Levels:
    """Levels (a, b) and what the network predicts at them."""

    a: list[float]
    b: list[float]
    prediction: str
    input_scale: list[float]
    init: float


def _refuse_options(name: str, config: Mapping[str, Any]) -> None:
    rules: dict[str, tuple[object, ...]] = {
        "thresholding": (False, None),
        "stochastic_sampling": (False, None),
        "invert_sigmas": (False, None),
        "algorithm_type": ("dpmsolver++", None),
        "solver_order": (1, 2, None),
        "variance_type": (None,),
    }
    for option, allowed in rules.items():
        value = config.get(option)
        if value not in allowed:
            wanted = " or ".join(repr(v) for v in allowed if v is not None) or "unset"
            raise ValueError(
                f"{option} of {name} must be {wanted} for patches to be independent, got {value!r}; "
                f"change it with {name}.from_config(pipe.scheduler.config, {option}=...)"
            )


def _ddim_levels(scheduler: Any, config: Mapping[str, Any]) -> _Levels:
    cumulative = cast(Tensor, scheduler.alphas_cumprod).double()
    kept = [float(cumulative[int(t)]) for t in scheduler.timesteps] + [float(scheduler.final_alpha_cumprod)]
    a, b = [math.sqrt(value) for value in kept], [math.sqrt(1 - value) for value in kept]
    return _Levels(a, b, config["prediction_type"], [1.0] * (len(kept) - 1), 1.0)


def _euler_levels(scheduler: Any, config: Mapping[str, Any]) -> _Levels:
    sigmas = [float(sigma) for sigma in scheduler.sigmas.double()]
    scale = [1 / math.sqrt(sigma**2 + 1) for sigma in sigmas[:-1]]
    kind: str = config["prediction_type"]
    prediction = "sample" if kind == "original_sample" else kind
    return _Levels([1.0] * len(sigmas), sigmas, prediction, scale, float(scheduler.init_noise_sigma))


def _flow_levels(scheduler: Any, config: Mapping[str, Any]) -> _Levels:
    sigmas = [float(sigma) for sigma in scheduler.sigmas.double()]
    return _Levels([1 - sigma for sigma in sigmas], sigmas, "flow_prediction", [1.0] * (len(sigmas) - 1), 1.0)


def _dpm_levels(scheduler: Any, config: Mapping[str, Any]) -> _Levels:
    sigmas = [float(sigma) for sigma in scheduler.sigmas.double()]
    if config.get("use_flow_sigmas"):
        a, b = [1 - sigma for sigma in sigmas], sigmas
    else:
        a = [1 / math.sqrt(sigma**2 + 1) for sigma in sigmas]
        b = [sigma * share for sigma, share in zip(sigmas, a, strict=True)]
    return _Levels(a, b, config["prediction_type"], [1.0] * (len(sigmas) - 1), 1.0)


_LEVELS = {
    "DDIMScheduler": _ddim_levels,
    "EulerDiscreteScheduler": _euler_levels,
    "FlowMatchEulerDiscreteScheduler": _flow_levels,
    "DPMSolverMultistepScheduler": _dpm_levels,
}


def _build(name: str, config: Mapping[str, Any], timesteps: Tensor, levels: _Levels) -> ClosedForm:
    count = len(levels.a) - 1
    if count < 1 or min(levels.b[:-1]) <= 0:
        raise _noiseless(name, levels.b[:-1])
    multistep = name == "DPMSolverMultistepScheduler" and config["solver_order"] == 2 and count > 1
    clip = float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else None
    rows: list[_Row] = []
    for k in range(count):
        p, q = _clean_coefficients(levels, k)
        u, gain = _first_order(levels, k)
        extra = 0.0
        if multistep and k > 0 and not _ends_in_first_order(config, k, count):
            extra = _second_order(levels, k, gain, config["solver_type"])
        a_next = levels.a[k + 1]
        # with clipping, only the clean part of the next sample is clipped, not the noise direction
        raw, clipped = (gain - a_next, a_next) if clip is not None else (0.0, gain + extra)
        rows.append(_Row(p, q, u, raw, clipped, -extra))
    return ClosedForm(
        name=name,
        timesteps=timesteps,
        signal=tuple(levels.a),
        noise=tuple(levels.b),
        input_scale=tuple(levels.input_scale),
        init_noise_sigma=levels.init,
        multistep=multistep,
        clip=clip,
        rows=tuple(rows),
    )


def _noiseless(name: str, levels: Sequence[float]) -> ValueError:
    return ValueError(
        f"every step of {name} must begin above the noiseless level, got noise levels {list(levels)}; "
        "omit the step at level 0"
    )


def _clean_coefficients(levels: _Levels, k: int) -> tuple[float, float]:
    """Return (p, q) with clean = p x + q output."""
    a, b = levels.a[k], levels.b[k]
    match levels.prediction:
        case "epsilon":
            if a == 0:
                raise ValueError(
                    "prediction_type 'epsilon' says nothing at a level without signal; "
                    "set rescale_betas_zero_snr=False"
                )
            return 1 / a, -b / a
        case "v_prediction":
            norm = math.hypot(a, b)
            return a / norm**2, -b / norm
        case "sample":
            return 0.0, 1.0
        case "flow_prediction":
            return 1.0, -b
        case other:
            raise ValueError(
                f"prediction_type must be epsilon, v_prediction, sample or flow_prediction, got {other!r}"
            )


def _first_order(levels: _Levels, k: int) -> tuple[float, float]:
    """Return (u, g) with x_next = u x + g clean: keep the noise, change both shares."""
    ratio = levels.b[k + 1] / levels.b[k]
    return ratio, levels.a[k + 1] - ratio * levels.a[k]


def _ends_in_first_order(config: Mapping[str, Any], k: int, count: int) -> bool:
    """Return whether DPM-Solver++ takes this step in first order."""
    short = bool(config["lower_order_final"]) and count < 15
    euler = bool(config["euler_at_final"]) or short or config["final_sigmas_type"] == "zero"
    return k == count - 1 and euler


def _second_order(levels: _Levels, k: int, gain: float, solver_type: str) -> float:
    """Return c in x_next = ... + c (clean_k - clean_{k-1}).

    Source: Lu et al., DPM-Solver++ (arXiv 2211.01095), algorithm 2, in terms of log a/b.
    """
    clock = [math.log(levels.a[i] / levels.b[i]) for i in (k - 1, k)]
    if levels.b[k + 1] == 0:
        raise ValueError("a second-order step cannot end without noise; set final_sigmas_type='zero'")
    h = math.log(levels.a[k + 1] / levels.b[k + 1]) - clock[1]
    if h == 0:
        return 0.0
    slope = h / (clock[1] - clock[0])
    weight = 0.5 * gain if solver_type == "midpoint" else levels.a[k + 1] - gain / h
    return weight * slope


def _wide(x: Tensor) -> Tensor:
    """Return at least float32: half precision loses the small difference of two levels."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
