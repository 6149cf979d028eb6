# SPDX-License-Identifier: Apache-2.0
"""What the adapters share: where a model comes from, devices, pictures in and out."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import NotSetUpError, SpecialistError, UnsupportedRequestError
from vitron.protocol.contract import MediaKind, SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.specialists.protocol import Request

NAMED, ANY_IMAGE, DRAWN_ONLY = 30, 10, -10  # see SpecialistSpec.preference
_UNKNOWN_BYTES = 6_000_000_000  # of a model that is not on this disk yet


class Adapter:
    """A specialist behind which another package stands.

    Args:
        model: Name or folder of its model; else the environment says it, else the bundled one is taken.

    Raises:
        NotSetUpError: If a package is missing, or no model was named and none comes along.
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
            raise NotSetUpError(f"name its model by the environment variable {variable(self.name)}")
        self.is_named = bool(named)
        self.model_name = named or str(self.bundled)

    @property
    def spec(self) -> SpecialistSpec:
        """What it says about itself."""
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


def variable(name: str, suffix: str = "MODEL") -> str:
    """Return the environment variable of a specialist.

    Example:
        >>> variable("diffusers-inpaint")
        'VITRON_DIFFUSERS_INPAINT_MODEL'
    """
    return f"VITRON_{name.upper().replace('-', '_')}_{suffix}"


def size_of_model(place: str) -> int:
    """Estimate what a model takes: the weights in its folder, or a guess for one that is not on the disk."""
    folder = Path(place)
    if not folder.is_dir():
        return _UNKNOWN_BYTES
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def is_loaded(model: object, name: str) -> Any:
    """Return a loaded model.

    Raises:
        SpecialistError: If there is none.
    """
    if model is None:
        raise SpecialistError(f"{name} must be loaded before it is run")
    return model


def media_of(request: Request, name: str) -> Artefact:
    """Return the picture or clip of a request.

    Raises:
        UnsupportedRequestError: If there is none.
    """
    if request.media is None:
        raise UnsupportedRequestError(f"{name} needs a picture or a clip for {request.module}")
    return request.media


def words_of(request: Request, *, verbs: bool = False) -> str:
    """Return all that was said as one sentence; verbs that are no generation may stand in front."""
    said = (
        f"{each.verb} {each.text}" if verbs and each.verb not in ("", "edit") else each.text
        for each in request.actions
    )
    return ", ".join(" ".join(each.split()) for each in said if each.strip())


def torch_dtype(dtype: str, device: str) -> Any:
    """Return torch's dtype of a name; ``"auto"`` is float16 on CUDA and float32 elsewhere.

    Raises:
        SpecialistError: If there is none of this name.
    """
    import torch

    if dtype == "auto":
        return torch.float16 if device.startswith("cuda") else torch.float32
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise SpecialistError(f"dtype must be auto, float32, bfloat16 or float16, got {dtype!r}")
    return found


def to_picture(frame: NDArray[np.uint8], size: tuple[int, int] | None = None) -> Image.Image:
    """Return ``(H, W, 3)`` as a Pillow picture, resized to height and width if they differ."""
    picture = Image.fromarray(frame)
    if size is None or size == frame.shape[:2]:
        return picture
    return picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)


def to_pixels(picture: Any, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return a Pillow picture, or an array in [0, 1], as ``(H, W, 3)`` uint8 of a size."""
    if not isinstance(picture, Image.Image):
        array = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        picture = Image.fromarray((array.clip(0, 1) * 255).round().astype(np.uint8))
    picture = picture.convert("RGB")
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.uint8)


def as_masks(masks: Sequence[NDArray[np.bool_]], labels: Sequence[str]) -> Artefact:
    """Return masks ``(H, W)`` of one picture as an artefact."""
    return Artefact("masks", np.stack(masks)[:, None].astype(np.bool_), tuple(labels))


@contextmanager
def quiet() -> Generator[None]:
    """Keep diffusers and transformers from drawing bars while a model is read."""
    from transformers.utils import logging as of_transformers

    bars = [of_transformers]
    if find_spec("diffusers") is not None:
        from diffusers.utils import logging as of_diffusers

        bars.append(of_diffusers)
    shown = [each for each in bars if each.is_progress_bar_enabled()]
    try:
        for each in shown:
            each.disable_progress_bar()
        yield
    finally:
        for each in shown:
            each.enable_progress_bar()


def free() -> None:
    """Give memory of a dropped model back to the device."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
