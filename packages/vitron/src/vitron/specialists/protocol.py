# SPDX-License-Identifier: Apache-2.0
"""The interface of specialists: request, result and methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import ArgValue, Region, SpecialistSpec
from vitron.protocol.media import Artefact


class Action(NamedTuple):
    """One instruction of a call, with the action that its verb names.

    Attributes:
        name: Name of the action, as ``recolour``; the module's first action if there was no verb.
        text: The object, or the whole sentence.
        verb: Verb of the call; may be empty.
    """

    name: str
    text: str
    verb: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One call, ready for a specialist.

    Attributes:
        module: Name of the task.
        actions: Instructions, in order.
        media: Image or video to work on; ``None`` for a module that works from text alone.
        mask: Region as a mask, ``(H, W)`` of the image, or of the frame ``region.frame`` of the video.
        region: Region of the call.
        track: Mask of the object on each frame of a video to work on, ``(T, H, W)``, from the mask head of
            the model that wrote the call; for specialists that edit videos and need a region.
        frames: First and last frame, both included, of the part of a video to work on.
        args: Further arguments.
    """

    module: str
    actions: tuple[Action, ...]
    media: Artefact | None = None
    mask: NDArray[np.bool_] | None = None
    region: Region | None = None
    track: NDArray[np.bool_] | None = None
    frames: tuple[int, int] | None = None
    args: Mapping[str, ArgValue] = field(default_factory=dict[str, ArgValue])

    @property
    def span(self) -> tuple[int, int]:
        """First and last frame to work on, both included: the part that is meant, or all.

        Raises:
            UnsupportedRequestError: If the medium ends before.
        """
        count = 1 if self.media is None else self.media.num_frames
        first, last = self.frames or (0, count - 1)
        if first >= count:
            raise UnsupportedRequestError(f"there is no frame {first}: the last one is {count - 1}")
        return first, min(last, count - 1)

    @property
    def start(self) -> int:
        """Frame on which the region lies; without a region of the user the first frame to work on.

        Raises:
            UnsupportedRequestError: If it is outside of the part that is meant.
        """
        first, last = self.span
        start = first if self.region is None else self.region.frame or 0
        if not first <= start <= last:
            raise UnsupportedRequestError(f"the region lies on frame {start}, outside of {first} to {last}")
        return start


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The result of a specialist.

    Attributes:
        artefact: Image, video or masks.
        note: One sentence for the user on what was done.
    """

    artefact: Artefact
    note: str = ""


@runtime_checkable
class Specialist(Protocol):
    """Interface of a specialist, which runs the calls of some modules.

    An entry point of the group ``vitron.specialists`` names a class or a function that, called without
    arguments, returns one. Importing and calling it must be cheap: weights are loaded in :meth:`load`.
    """

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        ...

    def load(self, device: str, dtype: str) -> None:
        """Load the weights and move them to the device.

        Args:
            device: ``"cpu"``, or an accelerator such as ``"cuda:1"``.
            dtype: Compute dtype, or ``"auto"``.
        """
        ...

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Run one call.

        Args:
            request: The call.
            signal: Signal embeddings of the model, ``(N, C)``; most specialists ignore them.
            seed: Random seed, 0 to 2 ** 63 - 1; the same request and seed give the same result.

        Raises:
            UnsupportedRequestError: If it cannot run the call; the next specialist is tried.
        """
        ...

    def unload(self) -> None:
        """Free the memory of :meth:`load`, which may be called again later."""
        ...
