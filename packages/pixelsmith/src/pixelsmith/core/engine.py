# SPDX-License-Identifier: Apache-2.0
"""The loop over steps and patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pixelsmith.config import JobConfig
from pixelsmith.core.noise import CellNoise
from pixelsmith.core.plan import PatchPlan, make_plan
from pixelsmith.core.protocol import Denoiser, OnPatch, OnStep, Progress, StageInterrupted
from pixelsmith.core.ranks import Ranks
from pixelsmith.core.stage import PatchWork
from pixelsmith.core.steps import plan_steps
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.journal import Position
from pixelsmith.store.memory import MemoryStage
from pixelsmith.store.protocol import StageStore

__all__ = ["run_stage"]


def run_stage(
    denoiser: Denoiser,
    clean: Tensor | Canvas,
    config: JobConfig,
    *,
    store: StageStore | None = None,
    on_patch: OnPatch | None = None,
    on_step: OnStep | None = None,
    ranks: Ranks | None = None,
    scale: float = 2.0,
    stage: int = 0,
) -> Canvas:
    """Noise the latents of an image and denoise them patch by patch, with those latents as guidance.

    Args:
        denoiser: The model.
        clean: Latents of the enlarged image, ``(C, H, W)`` or ``(1, C, H, W)``, or a canvas of them, which
            is only read.
        config: Settings of the loop.
        store: Store of the working canvases; memory if ``None``. With a folder, a call after a kill
            resumes behind the last finished patch. Process 0 only.
        on_patch: Called after every patch; a true value stops the stage.
        on_step: Called after every step with the new state; a true value stops the stage.
        ranks: Processes that share the patches; every one of them calls this function.
        scale: Enlargement of the stage, read by ``slider="auto"``.
        stage: Number of the stage; each has noise, patches and coins of its own.

    Returns:
        The denoised latents: a canvas of the store.

    Raises:
        ValueError: If the latents are too small for a patch, or the slider exceeds the steps.
        JobFolderError: If the journal belongs to another stage, or a canvas is damaged.
        StageInterrupted: If a hook asked for it.

    Source: Pixelsmith, arXiv 2406.07251, Sec. 3. ``mode="parallel"`` departs from its code in fusing the
        state at the beginning of the step, see ``docs/pixelsmith/method.md``.
    """
    if isinstance(clean, Tensor):
        if clean.ndim == 4 and clean.shape[0] != 1:
            raise ValueError(f"clean must be the latents of one image, got a batch of {clean.shape[0]}")
        clean = Canvas(clean[0] if clean.ndim == 4 else clean)
    runner = _Runner(denoiser, clean, config, store or MemoryStage(), ranks, scale, stage)
    with torch.no_grad():
        return runner.run(on_patch, on_step)


@dataclass(slots=True)
class _Count:
    """Position of the runner, and the number of patches so far."""

    step: int = 0
    done: int = 0
    calls: int = 0


class _Runner:
    """State of a running stage."""

    def __init__(
        self,
        denoiser: Denoiser,
        clean: Canvas,
        config: JobConfig,
        store: StageStore,
        ranks: Ranks | None,
        scale: float,
        stage: int,
    ) -> None:
        self.denoiser = denoiser
        self.clean = clean
        # images that a denoiser crops by patch, those of ControlNets, cannot follow it over the border
        has_images = bool(getattr(getattr(denoiser, "controls", None), "each", ()))
        self.config = replace(config, overhang=0) if has_images else config
        self.journal = store.journal
        self.ranks = ranks
        self.stage = stage
        self.steps = plan_steps(config, denoiser.num_steps, scale=scale)
        self.noise = CellNoise(config.seed, clean.channels, *clean.size, stage=stage)
        self.count = _Count()
        self._plan(0)  # refuses a canvas that is too small before any file is made
        if self.journal is not None:
            self.journal.claim(self._identity())
        names = ("state-a", "state-b") + (("estimate-a", "estimate-b") if denoiser.multistep else ())
        canvases = store.canvases(names, clean.channels, *clean.size)
        # the canvases of even and of odd steps
        self.sides = (canvases[0::2], canvases[1::2])

    def _identity(self) -> dict[str, object]:
        return {
            **self.config.to_dict(),
            "batch_size": None,  # free to change between runs
            "stage": self.stage,
            "num_steps": self.denoiser.num_steps,
            "guided_steps": self.steps.guided,
            "multistep": self.denoiser.multistep,
            "shape": list(self.clean.data.shape),
            "clean": self.clean.checksum(),
        }

    def _plan(self, step: int) -> PatchPlan:
        return make_plan(self.config, *self.clean.size, step, stage=self.stage)

    def run(self, on_patch: OnPatch | None, on_step: OnStep | None) -> Canvas:
        """Run all remaining steps."""
        self._begin()
        while self.count.step < self.steps.num_steps:
            plan = self._plan(self.count.step)
            self._run_step(plan, on_patch)
            progress = self._progress(plan)
            self.count.step += 1
            self.count.done = 0
            self._finish_step()
            state = self.sides[self.count.step % 2][0]
            if self._agree(on_step is not None and bool(on_step(progress, state))):
                raise StageInterrupted(progress, state)
        return self.sides[self.count.step % 2][0]

    def _begin(self) -> None:
        """Resume a stage where its journal ends, or fill the first canvas."""
        position = None if self.journal is None else self.journal.position
        if self.journal is not None and position is not None:
            side = position.step % 2
            position = self.journal.recover(self.sides[side], self.sides[1 - side])
        found = (position.step, position.done, position.calls) if position is not None else (-1, 0, 0)
        if self.ranks is not None:
            found = self.ranks.broadcast(torch.tensor(found, device=self.denoiser.device)).tolist()
        step, self.count.done, self.count.calls = found
        self.count.step = max(0, step)
        if step >= 0:
            self._share_canvases()
            return
        first = self.sides[0][0]
        for rows in first.strips():
            region = (rows.start, 0, rows.stop - rows.start, first.width)
            first.write(rows.start, 0, self._start(region))
        self._finish_step()

    def _start(self, region: tuple[int, int, int, int]) -> Tensor:
        """Return the first state of a region, ``(C, h, w)``."""
        device = self.denoiser.device
        noise = self.noise.read(*region).to(device).unsqueeze(0)
        if self.config.start == "noise":
            return self.denoiser.initial(noise)[0]
        clean = self.clean.read(*region).to(device).unsqueeze(0)
        return self.denoiser.add_noise(clean, noise, 0)[0]

    def _share_canvases(self) -> None:
        """Give the canvases of process 0, which resumed from its journal, to the others."""
        if self.ranks is None:
            return
        for canvas in (*self.sides[0], *self.sides[1]):
            for rows in canvas.strips():
                strip = canvas.data[:, rows].to(self.denoiser.device, copy=True)
                strip = self.ranks.broadcast(strip)
                if self.ranks.index:
                    canvas.data[:, rows] = strip.to(canvas.data)

    def _run_step(self, plan: PatchPlan, on_patch: OnPatch | None) -> None:
        step = self.count.step
        side = step % 2
        work = PatchWork(
            self.denoiser, self.config, self.steps, step, plan, self.clean, self.noise,
            self.sides[side], self.sides[1 - side],
        )  # fmt: skip
        num_ranks = 1 if self.ranks is None else self.ranks.count
        # patches that depend on one another are computed one by one
        size = 1 if self.steps.is_ordered(step) else self.config.batch_size * num_ranks
        while self.count.done < len(plan):
            # a resumed batch is computed whole again: the values of a patch may depend on its batch
            first = self.count.done - self.count.done % size
            indices = range(first, min(len(plan), first + size))
            results = self._compute(work, indices)[self.count.done - first :]
            for index, values in zip(indices[self.count.done - first :], results, strict=True):
                self._apply(work, index, values)
                progress = self._progress(plan)
                if self._agree(on_patch is not None and bool(on_patch(progress))):
                    raise StageInterrupted(progress, self.sides[side][0])

    def _compute(self, work: PatchWork, indices: Sequence[int]) -> Sequence[Tensor]:
        """Return the results of some patches in their order, computed here or elsewhere."""
        if self.ranks is None:
            return work.compute(indices).unbind()
        share = -(-len(indices) // self.ranks.count)
        own = indices[self.ranks.index * share : (self.ranks.index + 1) * share]
        planes = self.clean.channels * len(self.sides[0])
        results = torch.zeros(share, planes, *work.plan.patch, device=self.denoiser.device)
        if own:
            results[: len(own)] = work.compute(own)
        return torch.cat(self.ranks.gather(results))[: len(indices)].unbind()

    def _apply(self, work: PatchWork, index: int, values: Tensor) -> None:
        """Record a result in the journal, then write it to the canvas."""
        settled = work.settle(index, values)
        if self.journal is not None:
            self.journal.record(work.step, index, *work.plan.place_inside(index), settled.cpu())
        work.commit(index, settled)
        self.count.done += 1
        self.count.calls += 1
        if self.journal is not None and self.journal.is_due() and self.journal.position is not None:
            checksums = self.journal.position.checksums
            self.journal.checkpoint(
                Position(self.count.step, self.count.done, self.count.calls, checksums), work.writing
            )

    def _finish_step(self) -> None:
        """Record that the canvases of the current step are complete."""
        if self.journal is None:
            return
        complete = self.sides[self.count.step % 2]
        # the clean estimate is first written by step 0
        checksums = tuple(canvas.checksum() for canvas in complete)
        self.journal.checkpoint(Position(self.count.step, 0, self.count.calls, checksums), complete)

    def _agree(self, stop: bool) -> bool:
        """Return whether any process wants to stop."""
        if self.ranks is None:
            return stop
        answers = self.ranks.gather(torch.tensor([stop], device=self.denoiser.device))
        return any(bool(answer) for answer in answers)

    def _progress(self, plan: PatchPlan) -> Progress:
        """Describe the current position; remaining steps are assumed to be as long as those so far."""
        count = self.count
        until_end = count.calls + len(plan) - count.done
        mean = until_end / (count.step + 1)
        total = until_end + round(mean * (self.steps.num_steps - count.step - 1))
        return Progress(
            self.stage, count.step, self.steps.num_steps, count.done, len(plan), count.calls, total
        )
