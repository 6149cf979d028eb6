# SPDX-License-Identifier: Apache-2.0
"""Options that recipes share."""

# no annotations from __future__: cyclopts would look up inherited ones in the module of the subclass
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt

Flag = Annotated[bool, Parameter(negative="")]

_MACHINE = Group("Machine", sort_key=8)


@Parameter(name="*", group=_MACHINE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Debug:
    """How errors are reported.

    Attributes:
        debug: Traceback of an error instead of one sentence.
    """

    debug: Annotated[Flag, Parameter(group=Group("Output", sort_key=9))] = False


@Parameter(name="*", group=_MACHINE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Processor(Debug):
    """What a recipe computes with.

    Attributes:
        threads: Number of CPU threads.
    """

    threads: PositiveInt = 1


@Parameter(name="*", group=_MACHINE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator(Processor):
    """What a recipe computes with, a GPU if it is named.

    Attributes:
        device: Device: cpu, cuda or cuda:1.
    """

    device: str = "cpu"
