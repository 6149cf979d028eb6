# SPDX-License-Identifier: Apache-2.0
"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EvaluationOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """Samples that are evaluated, and how messages are generated and scored.

    Attributes:
        layout: Public layout of the data set; default is the format of vitron.
        split: Part of the data set, such as testA; default is all.
        limit: Largest number of samples.
        clip: CLIP model (folder or hub id) for scores that compare images with text.
        batch_size: Number of messages that are generated at a time.
        max_new_tokens: Largest number of tokens of a message.
        constrained: Whether calls are constrained to the grammar.
    """

    layout: str | None = None
    split: str | None = None
    limit: int | None = None
    clip: str | None = None
    batch_size: int = 1
    max_new_tokens: int = 256
    constrained: bool = True

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
