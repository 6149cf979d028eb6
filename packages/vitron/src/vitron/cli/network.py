# SPDX-License-Identifier: Apache-2.0
"""Port, key and batching of the commands that serve a model."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitron.cli.options import Address
    from vitron.model.batching import ContinuousBatcher
    from vitron.model.engine import Vitron


def is_local(host: str) -> bool:
    """Return whether only this machine can connect to an address."""
    return host in ("127.0.0.1", "::1", "localhost")


def api_key(address: Address) -> str | None:
    """Return the API key.

    Raises:
        ValueError: If there is none and other machines could connect.
    """
    key = os.environ.get(address.api_key_env, "").strip() or None
    if key is None and not is_local(address.host):
        raise ValueError(
            f"{address.host} is open to other machines: set a key in the environment variable "
            f"{address.api_key_env}"
        )
    return key


def listen(address: Address) -> socket.socket:
    """Bind the port before the model is loaded, so that a wrong one is reported at once.

    Raises:
        ValueError: If it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((address.host, address.port))
    except OSError as error:
        place.close()
        reason = error.strerror or error
        raise ValueError(f"port {address.port} of {address.host} cannot be used: {reason}") from error
    return place


def batched(vitron: Vitron, generations: int) -> ContinuousBatcher | Vitron:
    """Return a generator of so many messages at a time."""
    from vitron.model.batching import ContinuousBatcher

    return ContinuousBatcher(vitron, rows=generations) if generations > 1 else vitron
