# SPDX-License-Identifier: Apache-2.0
"""The first image of a job, with what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

from pixelsmith.io.metadata import NO_METADATA, Metadata
from pixelsmith.store.rows import ArrayRows

__all__ = ["Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """The first image of a job: a photo, or a base image that the model generated.

    Attributes:
        image: Pixels, transparent parts on white.
        alpha: Opacity of a photo that has transparent parts: three equal channels.
        metadata: EXIF and resolution of the photo.
    """

    image: ArrayRows
    alpha: ArrayRows | None = None
    metadata: Metadata = NO_METADATA
