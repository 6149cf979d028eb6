# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and the model behind them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from vitron.protocol.sampling import SamplingParams
from vitron.specialists.options import SpecialistOptions

if TYPE_CHECKING:
    from vitron.model.engine import Vitron
    from vitron.specialists.registry import SpecialistRegistry

SAMPLING, SPECIALISTS = Group("Sampling", sort_key=1), Group("Specialists", sort_key=2)
MACHINE, OUTPUT = Group("Machine", sort_key=8), Group("Output", sort_key=9)
Sampling = Annotated[SamplingParams, Parameter(name="*", group=SAMPLING)]
VideoFormat = Annotated[Literal["mp4", "gif"], Parameter(group=OUTPUT)]
Specialists = Annotated[SpecialistOptions, Parameter(name="*", group=SPECIALISTS)]


@Parameter(name="*", group=MACHINE)
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDevice:
    """Device and dtype of the model.

    Attributes:
        device: Device: auto, cpu, cuda[:n], xpu[:n] or mps; auto is the accelerator if there is one.
        dtype: Compute dtype; auto is float32 on CPU, else bfloat16; 8bit and 4bit weights need bitsandbytes.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "8bit", "4bit"] = "auto"


@Parameter(name="*", group=Group("Address", sort_key=3))
@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Address of a server.

    Attributes:
        host: Address to listen at; by default only this machine can connect.
        port: Port; 0 is any free one.
        api_key_env: Environment variable that holds the API key.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key_env: str = "VITRON_API_KEY"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port must lie in 0..65535, got {self.port}")


def load(
    model: str, machine: ModelDevice, specialists: SpecialistOptions
) -> tuple[Vitron, SpecialistRegistry]:
    """Load a model and find the specialists for its calls.

    Raises:
        ImportError: If a library of models is not installed.
        ValueError: If there is no such model or device.
    """
    from common_kernels.runtime.hub import quiet_libraries, resolve_device

    from vitron.model.engine import Vitron

    device = str(resolve_device(machine.device))
    with quiet_libraries("transformers"):
        vitron = Vitron.from_pretrained(model, device=device, dtype=machine.dtype)
    registry = vitron.specialists()
    registry.device = device
    return vitron, specialists.apply(registry)


def require(extra: str, *modules: str) -> None:
    """Check that an extra is installed.

    Raises:
        ImportError: If a module is missing.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ImportError(f"this needs {', '.join(missing)}: pip install 'vitron[{extra}]'")


def read_text(text: str) -> str:
    """Return an argument, or stdin if it is ``-``."""
    return sys.stdin.read() if text == "-" else text
