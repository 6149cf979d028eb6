# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed and resumed, or shared by two processes, give the bytes of a plain run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def run(script, *args):
    command = [sys.executable, str(HERE / script), str(HERE.parent / "conftest.py"), *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_runs_killed_after_any_patch_or_line_resume_to_the_same_bytes(tmp_path):
    report = run("killed.py", tmp_path, 0, 30)
    assert min(report["patches"].values()) > 10  # each model was killed after every one of its patches
    assert report["different"] == 0
    assert report["kills"] > 30  # a resume may reach its end before its line
    assert len(set(report["calls"])) > 5  # the kills came at different times


def test_two_processes_give_the_bytes_of_one(tmp_path):
    report = run("two_ranks.py", tmp_path)
    for rank in report["ranks"]:
        for (expected, _), found in zip(report["single"], rank, strict=True):
            assert found["found"] == found["resumed"] == expected
            assert found["stopped"]
            assert 0 < found["left"] < found["calls"]
    shared = [first["calls"] for first in report["ranks"][0][:2]]
    assert all(mine < calls for mine, (_, calls) in zip(shared, report["single"], strict=False))
