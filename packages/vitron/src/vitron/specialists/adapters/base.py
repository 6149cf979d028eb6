# SPDX-License-Identifier: Apache-2.0
"""Base of the adapters: model lookup and conversion of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from common_kernels.runtime.hub import find_model
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import NotSetUpError, SpecialistError, UnsupportedRequestError
from vitron.protocol.contract import MediaKind, SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.specialists.protocol import Request

NAMED, ANY_IMAGE, DRAWN_ONLY = 30, 10, -10  # see SpecialistSpec.preference
_UNKNOWN_BYTES = 6_000_000_000  # memory of a model that is not on this disk yet


class Adapter:
    """A specialist that wraps another package.

    Args:
        model: Name or folder of its model; by default that of the environment variable, else the bundled one.

    Raises:
        NotSetUpError: If a package is missing, or no model is set and none is bundled.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[MediaKind, ...]] = ()
    outputs: ClassVar[tuple[MediaKind, ...]]
    packages: ClassVar[tuple[str, ...]]
    bundled: ClassVar[str | None] = None
    bundled_bytes: ClassVar[int] = 0
    bundled_preference: ClassVar[int] = ANY_IMAGE
    uses_signals: ClassVar[bool] = False
    needs_region: ClassVar[bool] = False
    arguments: ClassVar[dict[str, str]] = {}

    def __init__(self, model: str | Path | None = None) -> None:
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise NotSetUpError(
                f'{" and ".join(missing)} must be installed: pip install "vitron[specialists]"'
            )
        named = str(model or "") or os.environ.get(variable(self.name), "").strip()
        if not named and self.bundled is None:
            raise NotSetUpError(f"set the environment variable {variable(self.name)} to its model")
        self.is_named = bool(named)
        self.model_name = named or str(self.bundled)

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        own = self.is_named
        return SpecialistSpec(
            name=self.name,
            summary=f"{self.summary} ({self.model_name})",
            tasks=self.tasks,
            inputs=self.inputs,
            outputs=self.outputs,
            args={
                "type": "object",
                "properties": {name: {"type": kind} for name, kind in self.arguments.items()},
            },
            memory_bytes=size_of_model(self.model_name) if own else self.bundled_bytes,
            licence="that of the model" if own else "Apache-2.0",
            uses_signals=self.uses_signals,
            needs_region=self.needs_region,
            preference=NAMED if own else self.bundled_preference,
        )

    def find(self, index_file: str = "config.json") -> str:
        """Return folder or hub id of the model, for libraries that load it.

        Args:
            index_file: File that a folder must have, and that the hub is asked for.

        Raises:
            ModelNotFoundError: If it is neither, or the hub does not answer: a library would try for minutes.
        """
        return str(find_model(self.model_name, index_file=index_file))


def variable(name: str, suffix: str = "MODEL") -> str:
    """Return the environment variable of a specialist.

    Example:
        >>> variable("diffusers-inpaint")
        'VITRON_DIFFUSERS_INPAINT_MODEL'
    """
    return f"VITRON_{name.upper().replace('-', '_')}_{suffix}"


def size_of_model(place: str) -> int:
    """Estimate the memory of a model: the weights in its folder, or a guess if it is not on this disk."""
    folder = Path(place)
    if not folder.is_dir():
        return _UNKNOWN_BYTES
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def is_loaded(model: object, name: str) -> Any:
    """Return a loaded model.

    Raises:
        SpecialistError: If it is not loaded.
    """
    if model is None:
        raise SpecialistError(f"{name} must be loaded before it runs")
    return model


def media_of(request: Request, name: str) -> Artefact:
    """Return the image or video of a request.

    Raises:
        UnsupportedRequestError: If the request has none.
    """
    if request.media is None:
        raise UnsupportedRequestError(f"{name} needs an image or a video for {request.module}")
    return request.media


def text_of(request: Request, *, verbs: bool = False) -> str:
    """Return the text of all actions as one sentence, optionally with the verbs in front."""
    texts = (
        f"{each.name} {each.text}" if verbs and each.verb and each.name != "edit" else each.text
        for each in request.actions
    )
    return ", ".join(" ".join(each.split()) for each in texts if each.strip())


def to_image(frame: NDArray[np.uint8], size: tuple[int, int] | None = None) -> Image.Image:
    """Return ``(H, W, 3)`` as a Pillow image, resized to height and width if they differ."""
    image = Image.fromarray(frame)
    if size is None or size == frame.shape[:2]:
        return image
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS)


def to_pixels(image: Any, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return a Pillow image, or an array in [0, 1], as ``(H, W, 3)`` uint8 of a size."""
    if not isinstance(image, Image.Image):
        array = np.nan_to_num(np.asarray(image, dtype=np.float32))
        image = Image.fromarray((array.clip(0, 1) * 255).round().astype(np.uint8))
    image = image.convert("RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)


def as_masks(masks: Sequence[NDArray[np.bool_]], labels: Sequence[str]) -> Artefact:
    """Return masks ``(H, W)`` of one image as an artefact."""
    return Artefact("masks", np.stack(masks)[:, None].astype(np.bool_), tuple(labels))


def free() -> None:
    """Free the memory of a deleted model on the device."""
    import gc

    import torch

    gc.collect()
    if torch.accelerator.is_available():
        torch.get_device_module().empty_cache()
