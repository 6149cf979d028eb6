# SPDX-License-Identifier: Apache-2.0
import json
import os
import socket
import subprocess
import sys

import pytest
from common_kernels.runtime.processes import Processes, join_processes

CHILD = """
import json
from common_kernels.runtime.processes import join_processes, leave_processes
processes = join_processes("cpu")
processes.wait()
found = processes.gather({"rank": processes.rank, "share": list(processes.shard(range(5)))})
print(json.dumps([processes.is_main, processes.device("auto"), found]))
leave_processes()
leave_processes()
import torch
assert not torch.distributed.is_initialized()
"""


@pytest.fixture
def alone(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_lone_process_opens_no_group(alone):
    processes = join_processes()
    assert processes == Processes()
    assert processes.is_main
    assert processes.gather(3) == [3]
    assert processes.device("cuda:1") == "cuda:1"
    processes.wait()


def test_ranks_by_hand_share_without_a_group(alone):
    alone.setenv("WORLD_SIZE", "3")
    alone.setenv("RANK", "1")
    processes = join_processes()
    assert processes.shard(range(7)) == range(1, 7, 3)
    assert processes.gather("x") == ["x"]
    assert not processes.is_main


@pytest.mark.parametrize(
    ("rank", "message"), [("3", "RANK must lie in"), ("-1", "RANK must lie in"), ("x", "must be numbers")]
)
def test_wrong_ranks_are_refused(alone, rank, message):
    alone.setenv("WORLD_SIZE", "3")
    alone.setenv("RANK", rank)
    with pytest.raises(ValueError, match=message):
        join_processes()


def test_several_processes_name_the_extra_they_need(alone):
    alone.setenv("WORLD_SIZE", "2")
    alone.setenv("MASTER_ADDR", "127.0.0.1")
    alone.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r'pip install "common-kernels\[distributed\]"'):
        join_processes()


def test_each_rank_has_its_own_device(alone):
    import torch

    alone.setattr(torch.accelerator, "device_count", lambda: 2)
    ranks = [Processes(rank=rank, world_size=4, local_rank=rank % 2) for rank in range(4)]
    for kind in ("cuda", "xpu"):
        device = torch.device(kind)
        alone.setattr(torch.accelerator, "current_accelerator", lambda check_available, found=device: found)
        for requested in ("auto", kind):
            found = [each.device(requested) for each in ranks]
            assert found == [f"{kind}:0", f"{kind}:1", f"{kind}:0", f"{kind}:1"]
        assert [each.device("cpu") for each in ranks] == ["cpu"] * 4
        assert ranks[1].device(f"{kind}:0") == f"{kind}:0"
        assert ranks[1].device("mps") == "mps"  # not there, which is said where it is used
    alone.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert ranks[1].device("auto") == "auto"
    alone.setenv("ACCELERATE_USE_CPU", "true")
    assert ranks[0].device("auto") == "cpu"


def test_two_processes_gather(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env=shared | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    found = [json.loads(each.communicate(timeout=300)[0].splitlines()[-1]) for each in running]
    everything = [{"rank": 0, "share": [0, 2, 4]}, {"rank": 1, "share": [1, 3]}]
    assert found == [[True, "cpu", everything], [False, "cpu", everything]]
    assert [each.returncode for each in running] == [0, 0]
