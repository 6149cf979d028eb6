# SPDX-License-Identifier: Apache-2.0
"""Tracking by features of a diffusion model, with diffeat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common_kernels.runtime.hub import quiet_libraries
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import DRAWN_ONLY, Adapter, free, is_loaded, media_of, variable
from vitron.specialists.instances import is_plural, label_of, split_instances
from vitron.specialists.protocol import Request, Result

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = "up-level1-*-cross-q,up-level2-repeat1-res-out"
_TIMESTEP = 50
_SIDE = 128  # pixels of a frame before the bundled model: 32 cells of 4
_BATCH = 4


class DiffeatTracker(Adapter):
    """Propagates the mask of one frame to all others: each cell takes the mean label of similar cells.

    For every frame the labels of the first and of the last few frames are read at the ``top_k`` most similar
    cells within ``radius`` cells, weighted by a softmax of the cosine over ``temperature``: the label
    propagation of Jabri et al. (arXiv 2006.14613), with activations of a denoiser as features.

    Args:
        model: Folder of a diffusers pipeline; default is the bundled ``tiny-sdxl``.
        names: Activations by diffeat's names, separated by commas; default is ``VITRON_DIFFEAT_NAMES``.
        context: Number of previous frames that are read, besides the first.
        top_k: Number of cells that vote.
        radius: Largest motion of an object between frames, in cells.
        temperature: Temperature of the softmax.
    """

    name = "diffeat"
    summary = "tracks a region by features of a diffusion model"
    tasks = ("video_segmentation",)
    inputs = ("video",)
    outputs = ("masks",)
    packages = ("diffeat", "torch", "diffusers")
    bundled = "tiny-sdxl"
    bundled_bytes = 120_000_000
    bundled_preference = DRAWN_ONLY
    _extractor: Any = None

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        names: str | None = None,
        context: int = 3,
        top_k: int = 8,
        radius: float = 6,
        temperature: float = 0.05,
    ) -> None:
        super().__init__(model)
        given = names or os.environ.get(variable(self.name, "NAMES"), "") or _NAMES
        self.names = [name.strip() for name in given.split(",") if name.strip()]
        self.context, self.top_k, self.radius, self.temperature = context, top_k, radius, temperature

    def load(self, device: str, dtype: str) -> None:
        """Load the pipeline."""
        from diffeat import FeatureExtractor

        with quiet_libraries("diffusers", "transformers"):
            self._extractor = FeatureExtractor.from_pretrained(
                self.model_name,
                device=device,
                dtype=dtype,  # pyright: ignore[reportArgumentType]  # checked there
            )

    def features(self, frames: NDArray[np.uint8]) -> Tensor:
        """Return features of frames, each activation of unit length, side by side.

        Args:
            frames: ``(T, H, W, 3)``, uint8.

        Returns:
            ``(T, C, h, w)`` float32 on the CPU, each cell of unit length.
        """
        import torch
        from diffeat import ExtractionOptions
        from torch.nn import functional as F

        extractor = is_loaded(self._extractor, self.name)
        size = None if self.is_named else _SIDE
        found = extractor(
            [np.ascontiguousarray(frame) for frame in frames],
            self.names,
            ExtractionOptions(timesteps=(_TIMESTEP,), size=size),
            batch_size=_BATCH,
        )
        scaled = {name: F.normalize(value.float().cpu(), dim=1) for name, value in found.items()}
        largest = max(
            (tuple(value.shape[-2:]) for value in scaled.values()), key=lambda side: side[0] * side[1]
        )
        resized = [
            F.interpolate(value, largest, mode="bilinear", align_corners=False) for value in scaled.values()
        ]
        return F.normalize(torch.cat(resized, dim=1), dim=1)

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Track; see :class:`vitron.specialists.Specialist`."""
        import torch
        from torch.nn import functional as F

        frames = media_of(request, self.name).frames
        if request.mask is None or not request.mask.any():
            raise UnsupportedRequestError("diffeat tracks a region of a frame: give one")
        (first, last), start = request.span, request.start
        features = self.features(frames[first : last + 1])
        size, cells = request.mask.shape, (int(features.shape[2]), int(features.shape[3]))
        seen = torch.from_numpy(request.mask.astype(np.float32))[None, None]
        mark = F.interpolate(seen, cells, mode="area")[0, 0]
        marks = self.propagate(features, mark, start - first)
        large = F.interpolate(marks[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        mask = np.zeros((len(frames), *size), dtype=np.bool_)
        mask[first : last + 1] = (large > 0.5).numpy()
        mask[start] = request.mask
        parts = split_instances(mask) if is_plural(request) and request.region is None else [mask]
        labels = (label_of(request),) * len(parts)
        return Result(Artefact("masks", np.stack(parts), labels), note=f"tracked from frame {start}")

    def propagate(self, features: Tensor, mark: Tensor, start: int) -> Tensor:
        """Propagate the mask of one frame forwards and backwards.

        Args:
            features: ``(T, C, h, w)``, each cell of unit length.
            mark: Mask ``(h, w)`` in [0, 1] of frame ``start``.
            start: The labelled frame.

        Returns:
            ``(T, h, w)`` in [0, 1].
        """
        import torch

        marks = torch.zeros(features.shape[0], *features.shape[2:])
        marks[start] = mark
        near = _neighbours(int(features.shape[2]), int(features.shape[3]), self.radius)
        for way in (1, -1):
            done, stop = [start], len(features) if way > 0 else -1
            for frame in range(start + way, stop, way):
                read = [start, *done[1:][-self.context :]]
                marks[frame] = self._vote(features[frame], features[read], marks[read], near)
                done.append(frame)
        return marks

    def _vote(self, here: Tensor, there: Tensor, marks: Tensor, near: Tensor) -> Tensor:
        """Return the labels of one frame from those of others.

        Args:
            here: ``(C, h, w)``.
            there: ``(R, C, h, w)``.
            marks: ``(R, h, w)``.
            near: ``(h * w, h * w)``, the cells that may vote for each cell.
        """
        alike = here.flatten(1).T @ there.transpose(0, 1).flatten(1)  # (h * w, R * h * w)
        alike = alike.masked_fill(~near.repeat(1, len(there)), -2.0)
        best = alike.topk(min(self.top_k, alike.shape[1]), dim=1)
        weights = (best.values / self.temperature).softmax(dim=1)
        return (weights * marks.flatten()[best.indices]).sum(dim=1).view(here.shape[1:])

    def unload(self) -> None:
        """Delete the pipeline."""
        self._extractor = None
        free()


def _neighbours(height: int, width: int, radius: float) -> Tensor:
    """Return the pairs of cells within a radius, ``(h * w, h * w)``."""
    import torch

    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).float()
    return torch.cdist(places, places) <= radius
