# SPDX-License-Identifier: Apache-2.0
"""Published figures, to stand beside measured ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published figure.

    Attributes:
        method: Method.
        psnr: PSNR in dB.
        ssim: SSIM, by the definition ``"grl"`` for SemanIR; ``None`` if not published.
        source: Where it stands.
    """

    method: str
    psnr: float
    ssim: float | None
    source: str


def published(task: str, setting: str, name: str) -> list[Published]:
    """Return what was published for a test set, lowest PSNR first; empty if nothing was.

    Args:
        task: Task, see :class:`semanir.evaluation.Protocol`.
        setting: Level of the degradation, from :attr:`semanir.evaluation.Protocol.setting`.
        name: Test set, such as ``"Set5"``, in any case.
    """
    source, rows = _read()
    found = [
        Published(method=row["method"], psnr=row["psnr"], ssim=row["ssim"], source=source)
        for row in rows
        if (row["task"], row["setting"], row["set"].lower()) == (task, setting, name.lower())
    ]
    return sorted(found, key=lambda each: each.psnr)


@cache
def _read() -> tuple[str, list[dict[str, Any]]]:
    stored = json.loads(Path(__file__).with_name("published.json").read_text("utf-8"))
    return stored["source"], stored["rows"]
