# SPDX-License-Identifier: Apache-2.0
"""Several images of one call: prompts, generators, initial latents, embeddings."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.options import TEXT

Prompt = str | Condition
Generators = torch.Generator | Sequence[torch.Generator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One image of a call.

    Attributes:
        prompt: Its prompt.
        settings: Settings of the call; of lists, the entry of this image.
        seed: Its random seed.
        latents: Its initial latents.
    """

    prompt: Prompt
    settings: Mapping[str, object]
    seed: int
    latents: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Embeddings of the prompts of a call, under the names of diffusers, a row for each prompt."""

    prompt_embeds: Tensor | None = None
    pooled_prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    negative_pooled_prompt_embeds: Tensor | None = None

    def conditions(self) -> list[Prompt]:
        """Return the prompts, one for each row."""
        sides = (
            self.prompt_embeds, self.pooled_prompt_embeds, self.negative_prompt_embeds,
            self.negative_pooled_prompt_embeds,
        )  # fmt: skip
        assert self.prompt_embeds is not None
        rows = [
            [None if side is None else side[at : at + 1] for side in sides]
            for at in range(len(self.prompt_embeds))
        ]
        return [
            Condition(embeds=embeds, pooled=pooled, negative_embeds=negative, negative_pooled=other)
            for embeds, pooled, negative, other in rows
            if embeds is not None
        ]


def expand(
    prompt: Prompt | Sequence[Prompt] | None,
    settings: Mapping[str, object],
    *,
    embeddings: Embeddings,
    num_images_per_prompt: int = 1,
    seed: int | None = None,
    generator: Generators | None = None,
    latents: Tensor | None = None,
) -> list[Request]:
    """Return the images of a call, all of the first prompt first.

    Args:
        prompt: Prompt, or several.
        settings: Settings; of texts, a list has an entry for each prompt.
        embeddings: Embeddings instead of prompts.
        num_images_per_prompt: Images of each prompt.
        seed: Random seed of the first image; the next have the next.
        generator: Generator from which the seeds are drawn, or one for each image.
        latents: Initial latents of the base images, a row for each image, as the host takes them.

    Raises:
        ValueError: If two ways to say something are used at once, or lengths differ.
    """
    if num_images_per_prompt < 1:
        raise ValueError(f"num_images_per_prompt must be at least 1, got {num_images_per_prompt}")
    if embeddings.prompt_embeds is not None:
        if prompt:
            raise ValueError("prompt and prompt_embeds cannot both be given; leave one out")
        prompts = embeddings.conditions()
    else:
        prompts = [prompt or ""] if isinstance(prompt, str | Condition | None) else list(prompt)
    if not prompts:
        raise ValueError("prompt must hold at least one prompt, got none")
    count = len(prompts) * num_images_per_prompt
    seeds = choose_seeds(count, seed, generator)
    if latents is not None and len(latents) != count:
        raise ValueError(f"latents must have a row for each of {count} images, got {len(latents)}")
    return [
        Request(
            prompt=prompts[at // num_images_per_prompt],
            settings=_entries(settings, at // num_images_per_prompt, len(prompts)),
            seed=seeds[at],
            latents=None if latents is None else latents[at : at + 1],
        )
        for at in range(count)
    ]


def _entries(settings: Mapping[str, object], index: int, count: int) -> dict[str, object]:
    """Return the settings of one prompt."""
    found: dict[str, object] = {}
    for name, value in settings.items():
        if name in TEXT and isinstance(value, list | tuple):
            texts: Sequence[Any] = value
            if len(texts) != count:
                raise ValueError(f"{name} must have an entry for each of {count} prompts, got {len(texts)}")
            found[name] = texts[index]
        else:
            found[name] = value
    return found


def choose_seeds(count: int, seed: int | None, generator: Generators | None) -> list[int]:
    """Return the seed of each image; without any they are drawn, without touching the global generators.

    Raises:
        TypeError: If the generator is something else.
        ValueError: If both are given, or a list has another length.
    """
    if generator is None:
        first = secrets.randbelow(2**63) if seed is None else seed
        return [first + at for at in range(count)] if count > 1 else [first]
    if seed is not None:
        raise ValueError("seed and generator cannot both be given; leave one out")
    if isinstance(generator, torch.Generator):
        return [_draw(generator) for _ in range(count)]
    if not all(isinstance(each, torch.Generator) for each in generator):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"generator must be a torch.Generator or a list of them, got {generator!r}")
    if len(generator) != count:
        raise ValueError(f"generator must have an entry for each of {count} images, got {len(generator)}")
    return [_draw(each) for each in generator]


def _draw(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
