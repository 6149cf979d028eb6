# SPDX-License-Identifier: Apache-2.0
"""Parity, then time, round robin over the contenders of a case."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from common_kernels._dispatch import BackendUnavailableError
from common_kernels.bench.case import Case, Measurement, Mode, Problem
from common_kernels.testing import peak_bytes, relative_error

_MIN_ROUNDS, _MAX_ROUNDS = 3, 200


def run_cases(
    cases: Iterable[Case],
    *,
    device: torch.device | str = "cpu",
    seconds_per_case: float = 6.0,
    log: bool = True,
) -> list[Measurement]:
    """Measure every contender of every case.

    Each contender is first checked against the float64 reference: one that is off is reported and not timed.
    Then all run in turn, round by round, so that a slow moment of the machine hits all alike.

    Args:
        cases: What to measure.
        device: Where.
        seconds_per_case: Time for the rounds of one case and mode; at least three rounds are run.
        log: Whether to say on stderr what is being measured.

    Returns:
        One measurement per case, mode and contender.
    """
    device = torch.device(device)
    peaks = _machine_rates(device)
    results: list[Measurement] = []
    for case in cases:
        problem = case.make(device)
        errors = _check(case, problem)
        for mode in case.modes:
            if log:
                sys.stderr.write(f"{case.name} ({mode})\n")
            rows = [replace(errors[name], mode=mode, times_ms=[]) for name in problem.contenders]
            _time(problem, rows, mode, device, seconds_per_case)
            for row in rows:
                if row.status == "ok" and mode == "forward":
                    _measure_memory(problem, row, device)
                    row.roofline = _roofline(case, row, peaks)
            results += rows
    return results


def _check(case: Case, problem: Problem) -> dict[str, Measurement]:
    """Return an untimed measurement of every contender: status, error and note."""
    facts: dict[str, Measurement] = {}
    with torch.no_grad():
        reference = None if problem.reference is None else problem.reference()
        for name, call in problem.contenders.items():
            row = facts[name] = Measurement(case.name, case.op, case.shape, "forward", name)
            try:
                value = call()
            except (BackendUnavailableError, NotImplementedError, torch.OutOfMemoryError) as error:
                row.status, row.note = "refused", str(error).splitlines()[0]
                continue
            if reference is None:
                reference = value.double()
            row.error = relative_error(value, reference)
            row.status = "ok" if row.error <= case.tolerance else "failed"
    return facts


def _time(
    problem: Problem, rows: list[Measurement], mode: Mode, device: torch.device, seconds: float
) -> None:
    calls = {
        row.contender: _runner(problem, row.contender, mode, device) for row in rows if row.status == "ok"
    }
    for row in list(rows):
        if row.status != "ok":
            continue
        try:
            calls[row.contender]()  # warm-up: caches fill, kernels compile
        except (NotImplementedError, torch.OutOfMemoryError) as error:
            row.status, row.note = "refused", str(error).splitlines()[0]
            del calls[row.contender]
    timed = [row for row in rows if row.contender in calls]
    start = time.perf_counter()
    for number in range(_MAX_ROUNDS):
        if number >= _MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
        # every round begins with another contender, so that none always follows the same one
        shift = number % max(1, len(timed))
        for row in timed[shift:] + timed[:shift]:
            row.times_ms.append(calls[row.contender]())


def _runner(problem: Problem, name: str, mode: Mode, device: torch.device) -> Callable[[], float]:
    """Return a call that runs a contender once and returns milliseconds."""
    call = problem.contenders[name]
    slope: Tensor | None = None

    def run() -> float:
        nonlocal slope
        _synchronise(device)
        start = time.perf_counter()
        if mode == "forward":
            with torch.no_grad():
                call()
        else:
            out = call()
            if slope is None:
                slope = torch.ones_like(out)
            torch.autograd.grad(out, problem.leaves, slope)
        _synchronise(device)
        return 1e3 * (time.perf_counter() - start)

    return run


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _measure_memory(problem: Problem, row: Measurement, device: torch.device) -> None:
    def forward() -> None:
        with torch.no_grad():
            problem.contenders[row.contender]()

    row.peak_mib = peak_bytes(forward, device) / 2**20


def _machine_rates(device: torch.device) -> tuple[float, float]:
    """Measure the two ceilings: operations and bytes per second."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a = torch.randn(side, side, device=device, dtype=dtype)
    b = torch.empty(2**28 if device.type == "cuda" else 2**24, device=device)
    c = torch.empty_like(b)
    return 2 * side**3 / _best(lambda: a @ a, device), 2 * b.nbytes / _best(lambda: c.copy_(b), device)


def _best(call: Callable[[], object], device: torch.device) -> float:
    times: list[float] = []
    for _ in range(8):
        _synchronise(device)
        start = time.perf_counter()
        call()
        _synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _roofline(case: Case, row: Measurement, peaks: tuple[float, float]) -> float | None:
    bound = max(case.flop / peaks[0], case.min_bytes / peaks[1])
    return 1e3 * bound / row.median_ms if bound else None
