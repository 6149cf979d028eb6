# SPDX-License-Identifier: Apache-2.0
"""What the machine is, and what it can do at best."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from common_kernels.bench.clock import Clock
from common_kernels.bench.results import Machine


def describe_machine(device: torch.device) -> Machine:
    """Name the machine and measure its two ceilings."""
    has_triton = importlib.util.find_spec("triton") is not None
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return Machine(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        kind=device.type,
        threads=torch.get_num_threads(),
        load=load,
        copy_gb_s=_copy_rate(device) / 1e9,
        matmul_tflop_s=_matmul_rate(device) / 1e12,
        python=platform.python_version(),
        torch=str(torch.__version__),
        triton=importlib.metadata.version("triton") if has_triton else None,
        common_kernels=importlib.metadata.version("common-kernels"),
        commit=_commit(),
        date=datetime.now(UTC).date().isoformat(),
    )


def cpu_name() -> str:
    """Return the model of the first processor, and the instructions that torch uses of it."""
    # virtual machines hide the model behind that of a whole family
    return f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _copy_rate(device: torch.device) -> float:
    # far larger than the caches that count
    source = torch.ones(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_seconds(device, lambda: target.copy_(source))


def _matmul_rate(device: torch.device) -> float:
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1536, torch.float32)
    a = torch.ones(side, side, device=device, dtype=dtype)
    return 2 * side**3 / _best_seconds(device, lambda: a @ a)


def _best_seconds(device: torch.device, call: Callable[[], object]) -> float:
    clock = Clock(device)
    return min(clock.laps(call)[0] for _ in range(10)) / 1e3
