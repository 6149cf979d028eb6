# SPDX-License-Identifier: Apache-2.0
"""Attention strategies by name: those of this package and those that others register."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from itaclip.config import AttentionConfig
    from itaclip.encoder.driver import AttentionStrategy

GROUP = "itaclip.attention"
# paths, so that a name is known without torch
_OWN = {
    "mixed": "itaclip.attention.mixed:MixedAttention",
    "value": "itaclip.attention.mixed:ValueAttention",
    "gem": "itaclip.attention.gem:GEMAttention",
    "scclip": "itaclip.attention.calibrated:SelfCalibratedAttention",
    "proxyclip": "itaclip.attention.proxy:ProxyAttention",
    "corrclip": "itaclip.attention.correlation:CorrelationAttention",
    "trident": "itaclip.attention.trident:TridentAttention",
}


def attention_names() -> tuple[str, ...]:
    """Return the names of all strategies, those of this package first."""
    others = sorted({entry.name for entry in entry_points(group=GROUP)} - _OWN.keys())
    return (*_OWN, *others)


def find_attention(name: str) -> type[AttentionStrategy]:
    """Return the class of a strategy.

    Args:
        name: One of :func:`attention_names`.

    Raises:
        ValueError: If there is none of this name, or what another package registered is no strategy.
    """
    from itaclip.encoder.driver import AttentionStrategy

    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        return getattr(import_module(module), attribute)
    entries = list(entry_points(group=GROUP, name=name))
    if not entries:
        raise ValueError(f"attention must be one of {', '.join(attention_names())}, got {name!r}")
    found = entries[0].load()
    if not (isinstance(found, type) and issubclass(found, AttentionStrategy)):
        raise ValueError(f"{entries[0].value}, registered as attention {name!r}, is no AttentionStrategy")
    return found


def build_attention(config: AttentionConfig) -> AttentionStrategy:
    """Return the strategy that a configuration names, with its options.

    Raises:
        ValueError: If there is none of this name, or an option is unknown or invalid.
    """
    return find_attention(config.strategy).from_config(config)
