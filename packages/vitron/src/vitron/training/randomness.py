# SPDX-License-Identifier: Apache-2.0
"""Random numbers that depend on the step alone, so that a resumed run draws those of an uninterrupted one."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["seeded"]


@contextmanager
def seeded(*numbers: int, device: torch.device | None = None) -> Generator[None]:
    """Seed torch, numpy and Python inside the block; their states are as before behind it.

    Dropout and new weights are drawn from the global generators. With a seed for each step no state has to be
    stored, and every process of a run has its own numbers, also after a restart.

    Args:
        numbers: What the seed is made of, such as seed, step and rank; each at least 0.
        device: Accelerator whose generator is seeded as well.
    """
    devices = [] if device is None or device.type == "cpu" else [device]
    seed, small = (int(each) for each in np.random.SeedSequence(numbers).generate_state(2, np.uint32))
    state, legacy = random.getstate(), np.random.get_state()  # what libraries draw from
    with torch.random.fork_rng(devices=devices, device_type=devices[0].type if devices else "cpu"):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(small)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(legacy)
