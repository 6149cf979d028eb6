# SPDX-License-Identifier: Apache-2.0
"""Children of the programs beside it: killed at a line of their code, or two that share a job."""

import json
import os
import signal
import sys
from datetime import timedelta

from torch import distributed


class Fuse:
    """A trace that counts the lines of some files, and kills the process at one of them.

    Args:
        traced: Parts of the paths of the files.
        last: Line at which the process is killed.
    """

    def __init__(self, traced, last=None):
        self.traced = traced
        self.lines = 0
        self.last = last

    def __call__(self, frame, event, arg):
        if not any(part in frame.f_code.co_filename for part in self.traced):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.last:
                kill()
        return self


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed(call, fuse=None):
    """Return whether a child that calls a function was killed."""
    child = os.fork()
    if child == 0:
        sys.settrace(fuse)
        call()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def reports_of_two(work, folder):
    """Call a function in each of two processes over gloo; return what it returns, by rank."""
    children = []
    for index in (0, 1):
        child = os.fork()
        if child == 0:
            try:
                distributed.init_process_group(
                    "gloo", init_method=f"file://{folder}/meeting", rank=index, world_size=2,
                    timeout=timedelta(seconds=60),
                )  # fmt: skip
                (folder / f"report-{index}.json").write_text(json.dumps(work(index)))
                distributed.destroy_process_group()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return [json.loads((folder / f"report-{index}.json").read_text()) for index in (0, 1)]
