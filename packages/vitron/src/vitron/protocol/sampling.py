# SPDX-License-Identifier: Apache-2.0
"""Sampling options."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SamplingParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How an assistant message is sampled.

    Attributes:
        max_new_tokens: Most tokens of a message.
        temperature: Sampling temperature; 0 is greedy.
        top_p: Share of the probability that is sampled from.
        seed: Random seed; the same conversation and seed give the same message.
        constrained: Constrain calls to the grammar.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    constrained: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p:g}")
