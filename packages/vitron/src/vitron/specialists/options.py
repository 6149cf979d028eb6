# SPDX-License-Identifier: Apache-2.0
"""Options for the specialists of a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitron.protocol.modules import MODULES

if TYPE_CHECKING:
    from vitron.specialists.registry import SpecialistRegistry

__all__ = ["SpecialistOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialistOptions:
    """Options for specialists.

    Attributes:
        specialist: Specialist to ask first, as sam, or for one module, as image_segmentation=sam; may be
            repeated.
        timeout: Seconds for one call of a specialist, loading included; 0 is no limit.
        memory: Megabytes for all loaded specialists; no limit by default.
    """

    specialist: tuple[str, ...] = ()
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
            SpecialistError: If a named specialist is not set up, or cannot be used.
            ValueError: If a named specialist or module does not exist, or it does not serve the module.
        """
        registry.timeout = self.timeout or None
        registry.memory_bytes = None if self.memory is None else self.memory * 1_000_000
        registry.prefer = tuple(_checked(each, registry) for each in self.specialist) or registry.prefer
        return registry


def _checked(named: str, registry: SpecialistRegistry) -> str:
    """Return the name of a specialist, with the name of its module if there is one."""
    module, _, name = (part.strip() for part in named.rpartition("="))
    if name not in registry.names:
        raise ValueError(f"there is no specialist {name!r}: choose one of {', '.join(registry.names)}")
    tasks = registry.spec(name).tasks
    if not module:
        return name
    found = MODULES.resolve(module)
    if found is None or found.name not in tasks:
        raise ValueError(f"{name} does not serve {module!r}: it serves {', '.join(tasks)}")
    return f"{found.name}={name}"
