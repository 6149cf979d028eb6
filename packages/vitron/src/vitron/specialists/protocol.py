# SPDX-License-Identifier: Apache-2.0
"""What a specialist is asked, what it answers, and what it must offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitron.protocol.contract import ArgValue, Region, SpecialistSpec
from vitron.protocol.media import Artefact


class Said(NamedTuple):
    """One instruction.

    Attributes:
        action: What the verb means, as ``recolour``; the module's first action where there was no verb.
        text: The object, or the whole sentence.
        verb: As it was said; may be empty.
    """

    action: str
    text: str
    verb: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """What a specialist is asked.

    Attributes:
        module: Name of the task.
        said: What to do.
        media: The picture or clip to work on; ``None`` where something is made from words.
        mask: Where, ``(H, W)`` of the picture, or of the frame ``region.frame`` of the clip.
        region: The same as it was given.
        frames: First and last frame, both included, of the part of a clip that is meant.
        args: Further arguments.
    """

    module: str
    said: tuple[Said, ...]
    media: Artefact | None = None
    mask: NDArray[np.bool_] | None = None
    region: Region | None = None
    frames: tuple[int, int] | None = None
    args: Mapping[str, ArgValue] = field(default_factory=dict[str, ArgValue])


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a specialist answers.

    Attributes:
        artefact: What it made.
        note: One sentence on what was done, for the user.
    """

    artefact: Artefact
    note: str = ""


@runtime_checkable
class Specialist(Protocol):
    """One who carries out calls of some modules.

    An entry point of the group ``vitron.specialists`` names a class or a function that, called without
    arguments, returns one. Importing and calling it must be light: weights are read in :meth:`load`.
    """

    @property
    def spec(self) -> SpecialistSpec:
        """What it says about itself."""
        ...

    def load(self, device: str, dtype: str) -> None:
        """Get ready: read weights, move them to the device.

        Args:
            device: ``"cpu"`` or ``"cuda[:n]"``.
            dtype: Arithmetic, or ``"auto"``.
        """
        ...

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Carry out one call.

        Args:
            request: What is asked.
            signal: Signal embeddings of the model, ``(N, C)``; most take no notice.
            seed: Same request and seed, same answer.

        Raises:
            UnsupportedRequestError: If it cannot do this; the next specialist is asked.
        """
        ...

    def unload(self) -> None:
        """Free what :meth:`load` took; it may be called again later."""
        ...
