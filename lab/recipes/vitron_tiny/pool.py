# SPDX-License-Identifier: Apache-2.0
"""Examples drawn and encoded before training, in shards of one file each."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from importlib import resources
from math import isqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vitron.data.example import Example
from vitron.model import ConversationEncoder
from vitron.model.batch import Encoded

from recipes.vitron_tiny.composing import Drawn
from recipes.vitron_tiny.composites import draw_composite
from recipes.vitron_tiny.conversations import draw_turns
from recipes.vitron_tiny.naming import draw_copied, draw_named
from recipes.vitron_tiny.seeing import LabelledExample
from recipes.vitron_tiny.stages import COMPOSITE, CONVERSATION, COPIED, EXPLICIT, NAMED
from recipes.vitron_tiny.tasks import draw_task

EXPLICIT_REFERENCES = 0.1
"""Share of the turns that refer back in conversations of explicit turns."""
EXPLICIT_PLAIN = 0.35
"""Share of their turns that are the plainest requests."""
EXPLICIT_FROM = 1_000_000
"""Number of the first of them, so that their scenes are not those of the other conversations."""

__all__ = ["PromptEncoder", "make_pool", "read_pool"]


class PromptEncoder:
    """Text encoders of the small diffusion model, as targets of the signals.

    Args:
        folder: Folder of a diffusers pipeline of the SDXL kind; by default the one that pixelsmith ships.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
            StableDiffusionXLPipeline,
        )

        folder = folder or Path(str(resources.files("pixelsmith") / "assets" / "tiny-sdxl"))
        self.pipe: Any = StableDiffusionXLPipeline.from_pretrained(folder, unet=None, vae=None)

    @torch.no_grad()
    def __call__(self, text: str) -> NDArray[np.float32]:
        """Return the prompt embeddings of the U-Net, ``(24, 128)``."""
        found = self.pipe.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)[0]
        return found[0].float().numpy()


def text_conditions(example: Example, prompts: PromptEncoder) -> dict[int, NDArray[np.float32]]:
    """Return the prompt embeddings of the calls that generate an image."""
    calls = [call for message in example.messages for call in message.calls]
    return {
        number: prompts(call.instruction[0].text)
        for number, call in enumerate(calls)
        if call.module == "text_to_image"
    }


@cache
def _encoders(tokenizer: Path) -> tuple[ConversationEncoder, PromptEncoder]:
    """Load the encoders once in a process."""
    torch.set_num_threads(1)
    return ConversationEncoder.from_pretrained(tokenizer), PromptEncoder()


def _draw(task: str, seed: int, index: int) -> Drawn:
    """Draw an example of a task, of conversations or of named things; its task is the name of its share."""
    if task == CONVERSATION:
        drawn = draw_turns(seed, index)[-1]
    elif task == EXPLICIT:
        number = index + EXPLICIT_FROM
        drawn = draw_turns(seed, number, references=EXPLICIT_REFERENCES, plain=EXPLICIT_PLAIN)[-1]
    elif task == NAMED:
        drawn = draw_named(seed, index)
    elif task == COPIED:
        drawn = draw_copied(seed, index)
    elif task == COMPOSITE:
        drawn = draw_composite(seed, index)
    else:
        drawn = draw_task(task, seed, index)
    return replace(drawn, example=replace(drawn.example, task=task))


def _shard(jobs: Sequence[tuple[str, int]], out: Path, *, tokenizer: Path, seed: int) -> int:
    encoder, prompts = _encoders(tokenizer)
    found = list[Encoded]()
    side = isqrt(encoder.config.backbone.image_seq_length)  # image tokens along each side of an image
    for task, index in jobs:
        drawn = _draw(task, seed, index)
        example = drawn.example
        encoded = LabelledExample.of(encoder.encode(example), drawn, side)
        encoded.conditions = {
            call: each.astype(np.float16) for call, each in text_conditions(example, prompts).items()
        }
        found.append(encoded)
    with out.open("wb") as file:
        pickle.dump(found, file, protocol=5)
    return len(found)


def make_pool(
    folder: Path,
    count: int,
    *,
    shares: Mapping[str, float],
    tokenizer: Path,
    seed: int = 1,
    processes: int = 2,
) -> int:
    """Draw examples of all tasks by their shares; shards that exist are kept.

    Args:
        folder: Folder of the shards.
        count: Number of examples of all tasks.
        shares: Share of each task, conversations among them.
        tokenizer: Folder with the processor's tokenizer and the model's configuration.
        seed: Random seed of the world.
        processes: Number of processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(task, index) for task, share in shares.items() for index in range(round(count * share))]
    shards = 16
    parts = [(jobs[start::shards], folder / f"{start:02}.pkl") for start in range(shards)]
    missing = [(part, path) for part, path in parts if not path.exists()]
    work = partial(_shard, tokenizer=tokenizer, seed=seed)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(work, [part for part, _ in missing], [path for _, path in missing]))


def read_pool(folder: Path, *, rank: int = 0, world_size: int = 1) -> list[Encoded]:
    """Return the examples of :func:`make_pool`; shards are pickles: read only your own.

    Args:
        folder: Folder of the shards.
        rank: Rank of this process, which reads its own shards alone to save memory.
        world_size: Number of processes.

    Raises:
        FileNotFoundError: If there are no shards.
    """
    found, shards = list[Encoded](), sorted(folder.glob("*.pkl"))
    if not shards:
        raise FileNotFoundError(f"{folder} has no examples: draw them first, by vitron pool")
    for path in shards[rank::world_size]:
        with path.open("rb") as file:
            found += pickle.load(file)
    return found
