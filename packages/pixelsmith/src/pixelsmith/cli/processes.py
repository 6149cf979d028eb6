# SPDX-License-Identifier: Apache-2.0
"""The processes that ``accelerate launch`` or ``torchrun`` started."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelsmith.core.ranks import ProcessRanks


def join_processes(device: str) -> tuple[ProcessRanks | None, str]:
    """Join the other processes, if there are any.

    Args:
        device: ``"auto"``, ``"cpu"`` or another of torch.

    Returns:
        The ranks, ``None`` for a process alone; and the device of this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None, device
    import torch
    from accelerate import PartialState

    from pixelsmith.core.ranks import ProcessRanks

    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    on_cpu = device == "cpu" or asked or not torch.cuda.is_available()
    # the others wait while process 0 encodes and decodes
    state = PartialState(cpu=on_cpu, timeout=timedelta(days=7))
    return ProcessRanks(), str(state.device) if device == "auto" else device
