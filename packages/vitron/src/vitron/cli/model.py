# SPDX-License-Identifier: Apache-2.0
"""The options of commands that talk, and the model behind them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vitron.model.engine import Vitron
    from vitron.specialists import SpecialistRegistry

Model = Annotated[str, typer.Option("--model", "-m", help="A model by name, or its folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16; 8bit or 4bit need bitsandbytes.")]
Timeout = Annotated[float | None, typer.Option(min=0.01, help="Seconds for one call of a specialist.")]
Memory = Annotated[int | None, typer.Option(min=1, help="Megabytes for all loaded specialists.")]
Prefer = Annotated[list[str] | None, typer.Option(help="Specialist to ask first; may be repeated.")]
Host = Annotated[str, typer.Option(help="Address to listen at; the default is this machine alone.")]
KeyEnv = Annotated[
    str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the key.")
]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def load(model: str, device: str = "auto", dtype: str = "auto") -> tuple[Vitron, SpecialistRegistry]:
    """Load a model, and find who carries out its calls.

    Raises:
        ImportError: If what models need is not installed.
        ValueError: If there is no such model.
    """
    try:
        from vitron.model.engine import Vitron
    except ImportError as error:
        name = error.name or "torch"
        raise ImportError(
            f"a model needs {name}, which is not installed: pip install torch transformers"
        ) from error
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # a bar is noise in a log, and in a pipe
    vitron = Vitron.from_pretrained(model, device=device, dtype=dtype)
    return vitron, vitron.specialists()


def bound(
    registry: SpecialistRegistry, timeout: float | None, memory: int | None, prefer: list[str] | None
) -> SpecialistRegistry:
    """Set the limits of a registry and whom it asks first; return it."""
    registry.timeout = timeout
    registry.memory_bytes = None if memory is None else memory * 1_000_000
    if prefer:
        registry.prefer = tuple(prefer)
    return registry


def require(extra: str, *modules: str) -> None:
    """Make sure that an extra is installed.

    Raises:
        ImportError: If a module is missing.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ImportError(f"this needs {', '.join(missing)}: pip install 'vitron[{extra}]'")
