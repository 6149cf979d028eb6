# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a store."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager

_FULL = {errno.ENOSPC, errno.EDQUOT}


class StoreError(RuntimeError):
    """A store that does not fit what is asked of it."""


class StoreFullError(StoreError, OSError):
    """No room left where the store is."""


@contextmanager
def disk_errors(url: str) -> Generator[None]:
    """Say in one sentence that a disk is full.

    Args:
        url: Address of the store.

    Raises:
        StoreFullError: Instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or isinstance(error, StoreFullError):
            raise
        raise StoreFullError(
            f"no space is left at {url}; every finished batch is kept, so make room and run the same again"
        ) from error
