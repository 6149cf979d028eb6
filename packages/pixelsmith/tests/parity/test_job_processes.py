# SPDX-License-Identifier: Apache-2.0
"""Whole jobs that are killed and resumed, or shared by two processes, give the bytes of a plain run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def run(script, *args):
    dummies = HERE.parent / "unit" / "conftest.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, str(HERE / script), str(dummies), *map(str, args)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_jobs_killed_at_random_lines_resume_to_the_same_files(tmp_path):
    report = run("killed_job.py", tmp_path, 0, 36)
    assert report["different"] == 0
    assert report["kills"] >= 30  # a resume may reach its end before its line
    assert len({calls for calls in report["calls"] if calls < report["whole"]}) > 3  # within different steps
    assert list(tmp_path.rglob(".*")) == []


def test_two_processes_give_the_image_of_one(tmp_path):
    report = run("two_rank_job.py", tmp_path)
    assert report["same"]
    first, second = report["ranks"]
    assert first["ends"] == ["JobInterrupted"] * 4 + ["end"]
    assert second["ends"] == ["end", "StageInterrupted", "end", "StageInterrupted", "end"]
    # every patch went through the model of one of them; a stopped batch is repeated
    assert report["calls"] <= first["calls"] + second["calls"] <= report["calls"] + 2 * 2 * 4
    assert min(first["calls"], second["calls"]) > report["calls"] / 4
