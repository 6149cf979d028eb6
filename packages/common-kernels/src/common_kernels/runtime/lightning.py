# SPDX-License-Identifier: Apache-2.0
"""Lightning in a command: no news of devices and services, no warnings of what a run does on purpose."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module

__all__ = ["expected_warnings", "quiet_lightning"]

_EXPECTED = (
    ".*does not have many workers",  # reading is cheap beside a step
    ".*your dataloader is not resumable",  # batches go on from any step
    ".*exists and is not empty",  # a folder with a checkpoint is what a run resumes from
    ".*LeafSpec",  # how Lightning asks torch
)


def quiet_lightning() -> None:
    """Let the loggers of Lightning pass warnings alone: they tell of accelerators and advertise a service.

    For commands, whose process is theirs; Lightning is imported, which sets the levels.
    """
    import_module("pytorch_lightning")
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def expected_warnings(*messages: str) -> Generator[None]:
    """Ignore the warnings about what our runs do on purpose.

    Args:
        messages: Further ones, as patterns of their beginning.
    """
    with warnings.catch_warnings():
        for message in (*_EXPECTED, *messages):
            warnings.filterwarnings("ignore", message)
        yield
