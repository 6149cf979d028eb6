# SPDX-License-Identifier: Apache-2.0
"""Time: laps of one run, and rounds in which all contenders take their turn."""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable, Mapping

import torch

Laps = Callable[[int], list[float]]  # takes the number of the round, returns milliseconds
Times = dict[str, dict[int, list[float]]]  # contender, round, lap

MAX_ROUNDS = 100
SLOW_MS = 2000.0  # a run that takes longer is timed once
_WARM_UPS = 5
_L2_BYTES = 256 << 20  # more than the second-level cache of any GPU


class Clock:
    """Takes the time of consecutive steps.

    On a GPU by events on its stream: the second-level cache is swept first, which also keeps the GPU busy
    while Python launches the steps, and the last event is waited for before the time is read.

    Args:
        device: Device of the steps.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        is_gpu = device.type == "cuda"
        self._sweep = torch.empty(_L2_BYTES, dtype=torch.int8, device=device) if is_gpu else None

    def laps(self, *steps: Callable[[], object]) -> list[float]:
        """Run the steps in order and return the milliseconds of each."""
        if self._sweep is None:
            marks = [time.perf_counter()]
            for step in steps:
                step()
                marks.append(time.perf_counter())
            return [1e3 * (end - start) for start, end in itertools.pairwise(marks)]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(steps) + 1)]
        torch.cuda.synchronize(self._device)
        self._sweep.zero_()
        events[0].record()
        for step, event in zip(steps, events[1:], strict=True):
            step()
            event.record()
        torch.cuda.synchronize(self._device)
        return [start.elapsed_time(end) for start, end in itertools.pairwise(events)]


def take_turns(
    runners: Mapping[str, Laps],
    leader: str,
    seconds: float,
    *,
    estimates_ms: Mapping[str, float],
    seed: int = 0,
) -> Times:
    """Run every contender in every round, in a newly shuffled order, so that a slow period affects all alike.

    A contender too slow for its share of the time sits out evenly spread rounds, but runs at least three; one
    that takes more than two seconds runs once. The leader never sits out, so each has rounds to be compared
    in.

    Args:
        runners: Contenders by name.
        leader: The one that the others are compared with.
        seconds: Time for each of them.
        estimates_ms: What a run takes, about; slower ones than two seconds are not warmed up again.
        seed: Random seed of the shuffling.

    Returns:
        For each contender, round and lap the milliseconds.
    """
    turns: dict[str, int] = {}
    for name, run in runners.items():
        estimate = estimates_ms[name]
        if estimate < SLOW_MS:
            for number in range(_WARM_UPS):
                estimate = sum(run(number))
                if estimate > 200 or (number and estimate > 50):
                    break
        least = 1 if estimate > SLOW_MS else 3
        turns[name] = max(least, min(MAX_ROUNDS, int(1e3 * seconds / max(estimate, 1e-3))))
    rounds = turns[leader] if leader in turns else max(turns.values(), default=0)
    order, shuffler = list(runners), random.Random(seed)
    times: Times = {name: {} for name in runners}
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            shuffler.shuffle(order)
            for name in order:
                share = min(1.0, turns[name] / rounds)
                if int((number + 1) * share + 1e-9) > int(number * share + 1e-9):
                    times[name][number] = runners[name](number)
    finally:
        if was_enabled:
            gc.enable()
    return times
