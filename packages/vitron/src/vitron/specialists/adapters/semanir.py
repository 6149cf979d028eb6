# SPDX-License-Identifier: Apache-2.0
"""Restoration by semanir."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import NAMED, Adapter, free, media_of, variable
from vitron.specialists.protocol import Request, Result

_ACTIONS = ("denoise", "deblur", "dejpeg", "upscale")


class SemanirRestorer(Adapter):
    """Denoises images; deblurs, removes JPEG blocks and upscales with further models.

    Args:
        model: Denoising model; default is the bundled ``tiny-denoise``.
        models: Further models by ``deblur``, ``dejpeg`` and ``upscale``; default: environment variables
            ``VITRON_SEMANIR_DEBLUR_MODEL`` and so on.
    """

    name = "semanir"
    summary = "denoises images"
    tasks = ("restoration",)
    inputs = ("image",)
    outputs = ("image",)
    packages = ("semanir", "torch")
    bundled = "tiny-denoise"
    bundled_bytes = 60_000_000
    arguments = {"scale": "integer"}  # noqa: RUF012  # annotated as a class variable above

    def __init__(
        self, model: str | Path | None = None, models: Mapping[str, str | Path] | None = None
    ) -> None:
        super().__init__(model)
        given = {action: str((models or {}).get(action, "")) for action in _ACTIONS[1:]}
        named = {action: os.environ.get(variable(f"semanir-{action}"), "").strip() for action in given}
        further = {action: given[action] or named[action] for action in given}
        self.models = {"denoise": self.model_name} | {key: name for key, name in further.items() if name}
        self._restorers: dict[str, Any] = {}
        self._place = ("cpu", "auto")

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        own = super().spec
        return own.model_copy(update={"preference": NAMED if len(self.models) > 1 else own.preference})

    def load(self, device: str, dtype: str) -> None:
        """Load the denoising model; the others are loaded on first use."""
        self._place = (device, dtype)
        self._restorer("denoise")

    def _restorer(self, action: str) -> Any:
        if action not in self.models:
            raise UnsupportedRequestError(
                f"semanir has no model for {action}: set {variable(f'semanir-{action}')} to one"
            )
        if action not in self._restorers:
            from semanir import Restorer

            device, dtype = self._place
            self._restorers[action] = Restorer.from_pretrained(
                self.models[action],
                device=device,
                dtype=dtype,  # pyright: ignore[reportArgumentType]  # checked there
            )
        return self._restorers[action]

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Restore; see :class:`vitron.specialists.Specialist`."""
        image = np.ascontiguousarray(media_of(request, self.name).frames[0])
        actions = ["denoise" if action.name == "restore" else action.name for action in request.actions] or [
            "denoise"
        ]
        restorers = [self._restorer(action) for action in actions]
        scale = request.args.get("scale")
        for action, restorer in zip(actions, restorers, strict=True):
            factor = int(restorer.model.config.upscale)
            if action == "upscale" and scale is not None and int(scale) != factor:
                raise UnsupportedRequestError(f"semanir's model enlarges {factor} times, not {scale}")
            image = restorer.restore(image)
        return Result(Artefact("image", np.asarray(image)), note=", ".join(actions))

    def unload(self) -> None:
        """Delete the models."""
        self._restorers.clear()
        free()
