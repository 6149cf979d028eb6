# SPDX-License-Identifier: Apache-2.0
"""The common part of all denoisers: solver, guidance and encoded prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from pixelsmith.adapters.schedulers import ClosedForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A prompt, encoded.

    Attributes:
        embeds: Prompt embeddings, ``(1, L, D)``.
        pooled: Pooled embedding, ``(1, E)``, for models that take one.
        negative_embeds: Negative prompt embeddings; ``None`` switches classifier-free guidance off.
        negative_pooled: Pooled embedding of the negative prompt.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    negative_embeds: Tensor | None = None
    negative_pooled: Tensor | None = None


# from row and column of the first latent of a patch to its prompt
PatchCondition = Callable[[int, int], Condition]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """Classifier-free guidance.

    Attributes:
        scale: Guidance scale; guidance is on above 1, if the condition has a negative side.
        rescale: Guidance rescale factor in [0, 1].

    Source: Lin et al., arXiv 2305.08891, Sec. 3.4, for ``rescale``.
    """

    scale: float = 1.0
    rescale: float = 0.0

    def is_on(self, condition: Condition) -> bool:
        """Return whether both sides of a condition are evaluated."""
        return condition.negative_embeds is not None and self.scale > 1

    def combine(self, negative: Tensor, positive: Tensor) -> Tensor:
        """Return the guided output of ``(B, C, h, w)`` each."""
        guided = negative + self.scale * (positive - negative)
        if self.rescale == 0:
            return guided
        dims = list(range(1, guided.ndim))
        even = guided * (positive.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True))
        return self.rescale * even + (1 - self.rescale) * guided


class SolverDenoiser:
    """The part of a denoiser that knows the schedule.

    Args:
        solver: Closed form of the scheduler.
        device: Device of the patches.
    """

    def __init__(self, solver: ClosedForm, device: torch.device | str) -> None:
        self.solver = solver
        self._device = torch.device(device)

    @property
    def num_steps(self) -> int:
        """Steps of the schedule."""
        return self.solver.num_steps

    @property
    def multistep(self) -> bool:
        """Whether a step needs the clean estimate of the step before."""
        return self.solver.multistep

    @property
    def device(self) -> torch.device:
        """Device of the patches and predictions."""
        return self._device

    def initial(self, noise: Tensor) -> Tensor:
        """Scale unit noise to the initial latents of text-to-image."""
        return self.solver.initial(noise)

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """Return clean latents at the noise level of a step."""
        return self.solver.add_noise(clean, noise, step)

    def advance(
        self, x: Tensor, prediction: Tensor, step: int, previous: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Take one step in closed form."""
        return self.solver.advance(x, prediction, step, previous)

    def timestep(self, step: int) -> Tensor:
        """Return the timestep of a step as the network takes it, a number on the device."""
        return self.solver.timesteps[step].to(self._device)


class Prompts:
    """Conditions of a batch of patches.

    Args:
        condition: Condition of all patches, or a function that returns that of a patch.
        device: Device of the network.
        dtype: Dtype of the network.
    """

    def __init__(
        self, condition: Condition | PatchCondition, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.condition, self.device, self.dtype = condition, device, dtype

    def of(self, origins: Sequence[tuple[int, int]]) -> Condition:
        """Return the conditions of some patches as one, their batch along the first axis.

        Raises:
            ValueError: If some have a negative side and others have none, or their lengths differ.
        """
        if isinstance(self.condition, Condition):
            each = [self.condition] * len(origins)
        else:
            each = [self.condition(row, column) for row, column in origins]
        return Condition(
            embeds=self._join([one.embeds for one in each]),
            pooled=self._join_if([one.pooled for one in each]),
            negative_embeds=self._join_if([one.negative_embeds for one in each]),
            negative_pooled=self._join_if([one.negative_pooled for one in each]),
        )

    def _join_if(self, parts: Sequence[Tensor | None]) -> Tensor | None:
        given = [part for part in parts if part is not None]
        if not given:
            return None
        if len(given) != len(parts):
            raise ValueError("the prompts of all patches must have a negative side, or none of them")
        return self._join(given)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        shapes = {tuple(part.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise ValueError(f"the prompts of all patches must have one shape, got {sorted(shapes)}")
        return torch.cat(list(parts)).to(self.device, self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Inputs of a network beside the prompt.

    Attributes:
        guidance: Classifier-free guidance.
        attention_kwargs: Arguments of the attention processors, such as the scale of a LoRA.
        image_embeds: Embeddings of IP-Adapters, ``(1, n, D)`` each, or ``(2, n, D)``, negative side first.
    """

    guidance: Guidance
    attention_kwargs: Mapping[str, object] | None = None
    image_embeds: Sequence[Tensor] = ()

    def images(self, count: int, sides: slice, like: Tensor) -> list[Tensor]:
        """Return the image embeddings of a batch, ``(sides * count, n, D)`` each.

        Args:
            count: Number of patches.
            sides: Sides of the embeddings.
            like: Tensor with dtype and device of the network.
        """
        return [one[sides].to(like).repeat_interleave(count, dim=0) for one in self.image_embeds]


# sides of a batch or of image embeddings: the negative comes first
NEGATIVE, POSITIVE, BOTH = slice(0, 1), slice(-1, None), slice(None)


def sided(negative: Tensor | None, positive: Tensor) -> Tensor:
    """Return both sides of a batch as one, or the positive side if there is no other."""
    return positive if negative is None else torch.cat([negative, positive])


_Controls = TypeVar("_Controls")


class NetworkDenoiser(SolverDenoiser, ABC, Generic[_Controls]):
    """The part of a denoiser that holds a network of diffusers and its inputs.

    Args:
        network: U-Net or transformer.
        solver: Closed form of the scheduler.
        condition: The prompt, or a function of a patch, with a pooled embedding for models that take one.
        extras: Guidance and further inputs.
        controls: ControlNets.
        device: Device of the patches.
    """

    def __init__(
        self,
        network: Any,
        solver: ClosedForm,
        condition: Condition | PatchCondition,
        extras: Extras,
        *,
        controls: _Controls | None = None,
        device: torch.device | str,
    ) -> None:
        super().__init__(solver, device)
        self.network = network
        self.extras = extras
        self.controls = controls
        self.prompts = Prompts(condition, self.device, network.dtype)

    @abstractmethod
    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Return the output of the network with guidance, ``(B, C, h, w)`` fp32."""
