# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_loop.py"


def own_memory(pixels):
    """Most bytes of a process, without mapped files, that runs a step around an idle model."""
    command = [sys.executable, str(BENCHMARK), "--weigh", str(pixels), "--steps", "1"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read the way of Linux")
def test_own_memory_hardly_grows_with_the_canvas():
    assert own_memory(16384) - own_memory(2048) < 300e6
