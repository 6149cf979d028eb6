# SPDX-License-Identifier: Apache-2.0
"""One patch of one step: its input, its result, and how the result is written to the canvas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelsmith.config import JobConfig
from pixelsmith.core.band import blend_band
from pixelsmith.core.chess import chess_masks
from pixelsmith.core.fusion import fuse_patches
from pixelsmith.core.noise import CellNoise
from pixelsmith.core.plan import PatchPlan
from pixelsmith.core.protocol import Denoiser
from pixelsmith.core.steps import StepPlan
from pixelsmith.store.canvas import Canvas

__all__ = ["PatchWork"]


class PatchWork:
    """One step of a stage: reads a snapshot, writes the next state.

    Args:
        denoiser: The model.
        config: Configuration of the loop.
        steps: Guidance and mask by step.
        step: Current step.
        plan: Patches of the step.
        clean: Latents of the guiding image.
        noise: The noise of the stage.
        reading: State at the beginning of the step, and for multistep solvers the last clean estimate.
        writing: Canvases that receive the same for the next step.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        config: JobConfig,
        steps: StepPlan,
        step: int,
        plan: PatchPlan,
        clean: Canvas,
        noise: CellNoise,
        reading: Sequence[Canvas],
        writing: Sequence[Canvas],
    ) -> None:
        self.denoiser = denoiser
        self.config = config
        self.steps = steps
        self.step = step
        self.plan = plan
        self.clean = clean
        self.noise = noise
        self.reading = reading
        self.writing = writing

    def compute(self, indices: Sequence[int]) -> Tensor:
        """Take the step on some patches.

        Args:
            indices: Numbers of the patches in the plan.

        Returns:
            ``(B, planes, P, Q)`` fp32 on the device of the model: the next state and, for multistep solvers,
            the clean estimate below it.
        """
        step, denoiser = self.step, self.denoiser
        x = self._stack(self.reading[0], indices)
        previous = self._stack(self.reading[1], indices) if denoiser.multistep and step else None
        fuses, masks = self.steps.fuses(step), self.steps.masks(step)
        clean = noise = None
        if fuses or masks:
            clean, noise = self._stack(self.clean, indices), self._stack(self.noise, indices)
        if fuses and clean is not None and noise is not None:
            x = self._fuse(x, denoiser.add_noise(clean, noise, step), indices)
        prediction = denoiser.predict(x, step, [self.plan.place(index) for index in indices])
        y, estimate = denoiser.advance(x, prediction, step, previous)
        planes = [y] if estimate is None else [y, estimate]
        if masks and clean is not None and noise is not None:
            taken = self._mask(indices)
            # a position of the guidance has the clean estimate of the guidance
            replaced = [denoiser.add_noise(clean, noise, step + 1), clean]
            planes = [torch.where(taken, new, old) for new, old in zip(replaced, planes, strict=False)]
        return torch.cat(planes, dim=1)

    def settle(self, index: int, values: Tensor) -> Tensor:
        """Return the new values of the part of a patch that lies on the canvas.

        Args:
            index: Number of the patch in the plan.
            values: Result of the patch, ``(planes, P, Q)``.

        Returns:
            ``(planes, p, q)`` in dtype and on the device of the canvases.
        """
        rows, columns = self.plan.inside(index)
        target = self.writing[0].data
        values = values[:, rows, columns].to(target.device)
        height, width = values.shape[1:]
        held = torch.cat(
            [canvas.read(*self.plan.place_inside(index), height, width) for canvas in self.writing]
        )
        if self.steps.is_official:
            return self._average(index, values, held).to(target.dtype)
        share, is_first = self.plan.shares(index, self.config.band_of(min(self.plan.patch)))
        share = _tensor(share[rows, columns], target)
        # what the canvas holds from earlier steps counts for nothing
        held = torch.where(_tensor(is_first[rows, columns], target), 0, held)
        return torch.where(share > 0, held + share * values, held).to(target.dtype)

    def _average(self, index: int, values: Tensor, held: Tensor) -> Tensor:
        """Return the result of a patch at positions it owns, as published, and the mean in the band."""
        fresh = self.plan.fresh(index)
        band = blend_band(fresh, self.config.band_of(min(self.plan.patch)))
        mean = torch.where(_tensor(band, held), (values + held) / 2, held)
        return torch.where(_tensor(fresh, held), values, mean)

    def commit(self, index: int, values: Tensor) -> None:
        """Write the region of a patch, as :meth:`settle` returned it."""
        parts = values.split(self.writing[0].channels)
        for canvas, part in zip(self.writing, parts, strict=True):
            canvas.write(*self.plan.place_inside(index), part)

    def _stack(self, source: Canvas | CellNoise, indices: Sequence[int]) -> Tensor:
        patches = [self._read(source, index) for index in indices]
        return torch.stack(patches).to(self.denoiser.device)  # (B, C, P, Q)

    def _read(self, source: Canvas | CellNoise, index: int) -> Tensor:
        """Return a patch, ``(C, P, Q)``, mirrored where it reaches over the border."""
        rows, columns = self.plan.inside(index)
        place = self.plan.place_inside(index)
        inner = source.read(*place, rows.stop - rows.start, columns.stop - columns.start)
        P, Q = self.plan.patch
        out = (columns.start, Q - columns.stop, rows.start, P - rows.stop)
        return F.pad(inner, out, mode="reflect") if any(out) else inner

    def _fuse(self, x: Tensor, guidance: Tensor, indices: Sequence[int]) -> Tensor:
        """Fuse patches with their guidance.

        The published code fuses the content of the canvas, where earlier patches of this step are one level
        ahead, and takes the unfused snapshot at those positions afterwards.
        """
        if not self.steps.is_official:
            fused = fuse_patches(x, guidance, self.config)
            guided = self._guided_steps(indices, x.device)
            return fused if guided is None else torch.where(self.step < guided, fused, x)
        mixed, fresh = [], []
        for index, snapshot in zip(indices, x, strict=True):
            own = _tensor(self.plan.fresh(index), x)
            held = self.writing[0].read(*self.plan.origin(index), *self.plan.patch).to(x.device)
            mixed.append(torch.where(own, snapshot, held))
            fresh.append(own)
        fused = fuse_patches(torch.stack(mixed), guidance, self.config)
        return torch.where(torch.stack(fresh).unsqueeze(1), fused, x)

    def _mask(self, indices: Sequence[int]) -> Tensor:
        """Return the positions that take the guidance, ``(B, 1, P, Q)`` bool."""
        device = self.denoiser.device
        taken = chess_masks(*self.plan.patch, [self.plan.coin_pair(i) for i in indices], device)
        guided = self._guided_steps(indices, device)
        return taken if guided is None else taken & (self.step < guided - 1)

    def _guided_steps(self, indices: Sequence[int], device: torch.device) -> Tensor | None:
        """Return the guided steps of each position, ``(B, 1, P, Q)``, or ``None`` if all are alike."""
        maps = [self.steps.guided_at(*self.plan.positions(index), self.plan.size) for index in indices]
        known = [found for found in maps if found is not None]
        return torch.stack(known).unsqueeze(1).to(device) if known else None


def _tensor(mask: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(mask).to(like.device)
