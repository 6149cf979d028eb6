# SPDX-License-Identifier: Apache-2.0
"""Signal embeddings of the language model, merged with the prompt of a pipeline of diffusers."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vitron.errors import SpecialistError

if TYPE_CHECKING:
    from torch import Tensor

Merge = Literal["off", "replace", "concat"]


def chosen_merge(given: str | None) -> Merge:
    """Return the merging of signals: the given one, else ``VITRON_SIGNALS``, else off.

    Raises:
        SpecialistError: If it is none of the three.
    """
    merge = given or os.environ.get("VITRON_SIGNALS", "") or "off"
    if merge not in get_args(Merge):
        raise SpecialistError(f"signals must be merged by {', '.join(get_args(Merge))}, got {merge!r}")
    return merge  # pyright: ignore[reportReturnType]  # one of the three


def prompt_settings(
    pipe: Any, prompt: str, signal: NDArray[np.float32] | None, merge: Merge
) -> tuple[dict[str, Any], str]:
    """Return the pipeline's arguments in place of the prompt, and a note for the user.

    ``replace`` puts the signals in place of the prompt's embeddings, ``concat`` puts them behind. Signals of
    another width than the embeddings, and pipelines without prompt embeddings, leave the prompt unchanged.

    Args:
        pipe: A pipeline.
        prompt: Prompt.
        signal: ``(N, C)``.
        merge: Merging of the signals.

    Returns:
        Arguments of the pipeline's call, and a note, which may be empty.
    """
    if signal is None or merge == "off":
        return {"prompt": prompt}, ""
    takes = inspect.signature(type(pipe).__call__).parameters
    encode = getattr(pipe, "encode_prompt", None)
    if encode is None or "prompt_embeds" not in takes:
        return {"prompt": prompt}, "this pipeline takes no prompt embeddings, the signals were ignored"
    wanted = inspect.signature(encode).parameters
    given = {
        "prompt": prompt,
        "device": pipe._execution_device,
        "num_images_per_prompt": 1,
        "num_videos_per_prompt": 1,
        "do_classifier_free_guidance": True,
    }
    found = encode(**{name: value for name, value in given.items() if name in wanted})
    names = _NAMES.get(len(found)) if isinstance(found, tuple) else None
    if names is None or any(name not in takes for name in names):
        return {
            "prompt": prompt
        }, "the prompt encoder of this pipeline is not known, the signals were ignored"
    settings: dict[str, Any] = dict(zip(names, found, strict=True))
    words, without = settings["prompt_embeds"], settings["negative_prompt_embeds"]
    if words.ndim != 3 or words.shape[-1] != signal.shape[-1]:
        return {"prompt": prompt}, (
            f"signals of width {signal.shape[-1]} do not fit embeddings of {words.shape[-1]}: ignored"
        )
    import torch

    extra = torch.from_numpy(np.ascontiguousarray(signal)).to(words)[None]
    merged = extra if merge == "replace" else torch.cat([words, extra], dim=1)
    settings["prompt_embeds"] = merged
    if without is not None:
        settings["negative_prompt_embeds"] = _fit(without, merged.shape[1])
    return {
        name: value for name, value in settings.items() if value is not None
    }, f"signals merged by {merge}"


_NAMES: dict[int, tuple[str, ...]] = {
    2: ("prompt_embeds", "negative_prompt_embeds"),
    4: (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ),
}


def _fit(embeds: Tensor, length: int) -> Tensor:
    """Cut embeddings ``(B, L, C)`` to a length, or repeat the last one."""
    import torch

    if embeds.shape[1] >= length:
        return embeds[:, :length]
    return torch.cat([embeds, embeds[:, -1:].expand(-1, length - embeds.shape[1], -1)], dim=1)
