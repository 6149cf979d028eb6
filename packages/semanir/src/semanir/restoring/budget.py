# SPDX-License-Identifier: Apache-2.0
"""How many pixels may be in memory at once, whatever the number of threads."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["PixelBudget"]


class PixelBudget:
    """Lets threads in as long as the images they hold fit into a budget; one image always does.

    Args:
        pixels: Pixels of all images together.
    """

    def __init__(self, pixels: int) -> None:
        self._most = pixels
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Generator[None]:
        """Wait until there is room for an image, and keep it.

        Args:
            pixels: Pixels of the image.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + pixels <= self._most)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()
