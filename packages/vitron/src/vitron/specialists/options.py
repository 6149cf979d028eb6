# SPDX-License-Identifier: Apache-2.0
"""Options for the specialists of a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitron.specialists.registry import SpecialistRegistry

__all__ = ["SpecialistOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialistOptions:
    """Options for specialists.

    Attributes:
        prefer: Specialist to try first; may be repeated.
        timeout: Seconds for one call of a specialist, loading included; 0 is no limit.
        memory: Megabytes for all loaded specialists; no limit by default.
    """

    prefer: tuple[str, ...] = ()
    timeout: float = 300.0
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.timeout < 0:
            raise ValueError(f"timeout must be at least 0, got {self.timeout:g}")
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"memory must be at least 1, got {self.memory}")

    def apply(self, registry: SpecialistRegistry) -> SpecialistRegistry:
        """Set these options in a registry, and return it.

        Raises:
            ValueError: If a preferred specialist does not exist.
        """
        registry.timeout = self.timeout or None
        registry.memory_bytes = None if self.memory is None else self.memory * 1_000_000
        unknown = [name for name in self.prefer if name not in registry.names]
        if unknown:
            raise ValueError(
                f"there is no specialist {unknown[0]!r}: choose one of {', '.join(registry.names)}"
            )
        if self.prefer:
            registry.prefer = self.prefer
        return registry
