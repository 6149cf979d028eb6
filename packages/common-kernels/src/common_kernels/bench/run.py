# SPDX-License-Identifier: Apache-2.0
"""Parity first, then memory, then time, contender beside contender."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from common_kernels._dispatch import BackendUnavailableError
from common_kernels.bench.case import MODES, Case, Contender, Inputs, Mode
from common_kernels.bench.clock import SLOW_MS, Clock, Laps, Times, take_turns
from common_kernels.bench.machine import describe_machine
from common_kernels.bench.results import Machine, Measurement, Status
from common_kernels.testing import assert_close_to_reference, peak_bytes, relative_error

Stage = Literal["forward", "step"]
_STAGE: dict[Mode, Stage] = {"forward": "forward", "backward": "step", "both": "step"}
_CANNOT = (BackendUnavailableError, NotImplementedError, torch.OutOfMemoryError)
_GPU_SETS = 3  # sets of inputs that take turns


@dataclass(slots=True)
class _Outcome:
    """What is known of a contender at a stage before it is timed."""

    status: Status = "measured"
    note: str = ""
    error: float | None = None
    peak: int | None = None
    first_ms: float | None = None
    estimate_ms: float = 0.0


def run_cases(
    cases: Sequence[Case],
    *,
    device: torch.device | str = "cpu",
    modes: Sequence[Mode] = MODES,
    budget: float = 200.0,
    machine: Machine | None = None,
    progress: Callable[[str], object] | None = None,
) -> list[Measurement]:
    """Measure every contender of every case.

    Each is first compared with the float64 reference, output and gradients; one that is off is reported and
    not timed. Memory is that of the first call, with whatever it prepares. Timed runs find everything
    prepared.

    Args:
        cases: What to measure.
        device: Device of the inputs.
        modes: What of it; a case may offer less.
        budget: Seconds for all timed runs together; parity, memory and runs slower than a turn come on top.
        machine: The ceilings for the roofline, measured if ``None``.
        progress: Function that is called with one line at each stage.

    Returns:
        Measurements by case, contender and mode.
    """
    device = torch.device(device)
    machine = machine or describe_machine(device)
    slots = sum(len(case.contenders) * len(_stages(case, modes)) for case in cases)
    results: list[Measurement] = []
    start = time.monotonic()
    for number, case in enumerate(cases):
        if progress is not None:
            progress(f"[{number + 1}/{len(cases)}] {case.op} {case.name}{_left(start, number, len(cases))}")
        results += _Run(case, device, modes).measure(budget / max(1, slots), machine)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def _stages(case: Case, modes: Sequence[Mode]) -> list[Stage]:
    return list(dict.fromkeys(_STAGE[mode] for mode in MODES if mode in modes and mode in case.modes))


def _left(start: float, done: int, total: int) -> str:
    if not done:
        return ""
    seconds = (time.monotonic() - start) / done * (total - done)
    return f", about {seconds:.0f} s left"


class _Run:
    """One case on one device."""

    def __init__(self, case: Case, device: torch.device, modes: Sequence[Mode]) -> None:
        self.case, self.device = case, device
        self.modes: list[Mode] = [mode for mode in MODES if mode in modes and mode in case.modes]
        self.stages = _stages(case, modes)
        self.clock = Clock(device)
        sets = _GPU_SETS if device.type == "cuda" else 1
        self.sets = [case.make_inputs(seed, device, case.dtype) for seed in range(sets)]
        self.auto = next(c.name for c in case.contenders if c.kind == "auto")

    @functools.cached_property
    def expected(self) -> dict[str, Tensor]:
        return self.case.reference(self.sets[0].to(torch.float64))

    @functools.cached_property
    def eager(self) -> dict[str, Tensor]:
        return self.case.reference(self.sets[0])

    def measure(self, seconds: float, machine: Machine) -> list[Measurement]:
        outcomes = {
            (c.name, stage): self._check(c, stage) for c in self.case.contenders for stage in self.stages
        }
        times: dict[Stage, Times] = {}
        for stage in self.stages:
            fit = [c for c in self.case.contenders if outcomes[c.name, stage].status == "measured"]
            estimates = {c.name: outcomes[c.name, stage].estimate_ms for c in fit}
            runners = {c.name: self._runner(c, stage) for c in fit}
            times[stage] = take_turns(runners, self.auto, seconds, estimates_ms=estimates)
        rows: list[Measurement] = []
        for contender in self.case.contenders:
            for mode in self.modes:
                outcome = outcomes[contender.name, _STAGE[mode]]
                row = self._row(contender, mode, outcome)
                rows.append(
                    self._timed(row, times[_STAGE[mode]], machine) if row.status == "measured" else row
                )
        return rows

    def _check(self, contender: Contender, stage: Stage) -> _Outcome:
        """Run a contender for the first time and compare it with the reference."""
        inputs = self.sets[0]
        reason = contender.why_not(inputs)
        if reason is None and stage == "step" and not contender.trains:
            reason = "has no backward here"
        if reason is not None:
            return _Outcome("skipped", reason)
        found: dict[str, Tensor] = {}

        def first() -> None:
            found.clear()
            found.update(_compute(contender, inputs, contender.prepare(inputs), stage))

        outcome = _Outcome(note="" if contender.describe is None else contender.describe(inputs))
        try:
            outcome.peak = peak_bytes(first, self.device)
            outcome.estimate_ms = self.clock.laps(first)[0]
        except RuntimeError as error:
            cannot = contender.kind == "peer" or isinstance(error, _CANNOT)
            return _Outcome("skipped" if cannot else "failed", str(error).strip().splitlines()[0][:160])
        if stage == "forward":
            more = 2 if outcome.estimate_ms < SLOW_MS else 0
            laps = [outcome.estimate_ms, *(self.clock.laps(first)[0] for _ in range(more))]
            outcome.first_ms = _quantile(laps, 0.5)
        if contender.is_same:
            self._compare(found, outcome)
        return outcome

    def _compare(self, found: Mapping[str, Tensor], outcome: _Outcome) -> None:
        worst = 0.0
        for name, value in found.items():
            value = self.case.comparable(self.sets[0], value) if name == "output" else value
            error = relative_error(value, self.expected[name])
            worst = error if math.isnan(error) else max(worst, error)
            check = functools.partial(
                assert_close_to_reference,
                value,
                self.expected[name],
                name=name,
                dtype=self.case.dtype,
                reduction=self.case.reduction,
            )
            try:
                check()
            except AssertionError:
                try:
                    check(eager=self.eager[name])
                except AssertionError as failure:
                    outcome.status, outcome.note = "failed", str(failure)
                    break
        outcome.error = worst if math.isfinite(worst) else None

    def _runner(self, contender: Contender, stage: Stage) -> Laps:
        prepared = [contender.prepare(inputs) for inputs in self.sets]

        def laps(number: int) -> list[float]:
            inputs, ready = self.sets[number % len(self.sets)], prepared[number % len(self.sets)]
            if stage == "forward":
                return self.clock.laps(lambda: _compute(contender, inputs, ready, "forward"))
            grad_output, leaves = inputs.grad_output, list(inputs.leaves.values())
            output = torch.empty(0)

            def forward() -> None:
                nonlocal output
                output = contender.run(inputs.leaves, ready)

            def backward() -> None:
                torch.autograd.grad([output], leaves, [grad_output])

            return self.clock.laps(forward, backward)

        return laps

    def _row(self, contender: Contender, mode: Mode, outcome: _Outcome) -> Measurement:
        return Measurement(
            op=self.case.op,
            case=self.case.name,
            shape=dict(self.case.shape),
            dtype=str(self.case.dtype).removeprefix("torch."),
            contender=contender.name,
            kind=contender.kind,
            mode=mode,
            status=outcome.status,
            note=outcome.note,
            error=outcome.error,
            first_ms=outcome.first_ms,
            peak_bytes=outcome.peak,
        )

    def _timed(self, row: Measurement, times: Times, machine: Machine) -> Measurement:
        taken = {
            name: {number: _of_mode(laps, row.mode) for number, laps in rounds.items()}
            for name, rounds in times.items()
        }
        mine, auto = taken[row.contender], taken.get(self.auto, {})
        ratios = [mine[number] / auto[number] for number in mine if number in auto]
        median = _quantile(mine.values(), 0.5)
        flop, traffic = self.case.flop.get(row.mode, 0.0), self.case.traffic.get(row.mode, 0.0)
        least_ms = 1e3 * max(flop / (machine.matmul_tflop_s * 1e12), traffic / (machine.copy_gb_s * 1e9))
        return replace(
            row,
            median_ms=median,
            low_ms=_quantile(mine.values(), 0.2),
            high_ms=_quantile(mine.values(), 0.8),
            runs=len(mine),
            ratio=_quantile(ratios, 0.5) if ratios else None,
            roofline=least_ms / median if least_ms and row.kind != "part" else None,
        )


def _compute(contender: Contender, inputs: Inputs, prepared: Any, stage: Stage) -> dict[str, Tensor]:
    """Return the output and, at stage ``"step"``, the gradient of each leaf by name."""
    if stage == "forward":
        with torch.no_grad():
            return {"output": contender.run(inputs.leaves, prepared)}
    output = contender.run(inputs.leaves, prepared)
    gradients = torch.autograd.grad([output], list(inputs.leaves.values()), [inputs.grad_output])
    return {"output": output.detach(), **dict(zip(inputs.leaves, gradients, strict=True))}


def _of_mode(laps: Sequence[float], mode: Mode) -> float:
    return laps[1] if mode == "backward" else sum(laps)


def _quantile(values: Iterable[float], share: float) -> float:
    return float(torch.tensor([*values], dtype=torch.float64).quantile(share))
