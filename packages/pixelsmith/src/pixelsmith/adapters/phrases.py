# SPDX-License-Identifier: Apache-2.0
"""Prompts of patches by themselves: the phrases that the network attends to in the part that a patch shows.

A patch of sky with a cat in its prompt tends to show a cat. Where a phrase belongs is told by the
cross-attention of the network on the image at its native size, noised to some levels.

Source: after AccDiffusion, arXiv 2407.10738, Sec. 3.2; phrases instead of words, and any touch of a phrase's
    region instead of a share, so that no patch over a thing loses its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pixelsmith.adapters.options import PatchPlace
from pixelsmith.core.protocol import Denoiser

_SHARES = (0.3, 0.5, 0.7)  # of the steps, at whose noise levels the network is looked at
_THRESHOLD = 0.5
_LEADING = ("and", ",", ";", ".")  # words that mean nothing before the first phrase
_JOINING = {
    *_LEADING, "with", "on", "in", "at", "under", "over", "above", "below", "beside", "behind", "near", "by",
    "before",
}  # fmt: skip
_EMPTY = {*_JOINING, "a", "an", "the", "of", "its", "his", "her", "their"}

Maps = NDArray[np.float32]


def split_phrases(prompt: str) -> list[list[str]]:
    """Split a prompt into phrases, each a list of words that begins with what joins it to the one before.

    Example:
        >>> split_phrases("a red circle and a star on waves")
        [['a', 'red', 'circle'], ['and', 'a', 'star'], ['on', 'waves']]
    """
    phrases: list[list[str]] = [[]]
    for word in re.findall(r"[,;.]|[^\s,;.]+", prompt):
        if word.lower() in _JOINING and _says_something(phrases[-1]):
            phrases.append([])
        phrases[-1].append(word)
    if len(phrases) > 1 and not _says_something(phrases[-1]):
        last = phrases.pop()
        phrases[-1] += last
    return [phrase for phrase in phrases if phrase]


def _says_something(phrase: Sequence[str]) -> bool:
    return any(word.lower() not in _EMPTY for word in phrase)


@dataclass(frozen=True, slots=True)
class PhraseMaps:
    """Where each phrase of a prompt belongs.

    Attributes:
        phrases: Phrases, as :func:`split_phrases` returns them.
        maps: Attention to each, ``(K, h, w)`` in [0, 1] over the whole image.
    """

    phrases: Sequence[Sequence[str]]
    maps: Maps

    def choose(self, place: PatchPlace) -> str:
        """Return the prompt of a patch: all phrases that belong to some part of it, in their order."""
        rows = _cells(place.top, place.height, place.size[0], self.maps.shape[1])
        columns = _cells(place.left, place.width, place.size[1], self.maps.shape[2])
        words: list[str] = []
        for phrase, each in zip(self.phrases, self.maps, strict=True):
            if each[np.ix_(rows, columns)].max() >= _THRESHOLD:
                words += phrase
        words = list(dropwhile(lambda word: word.lower() in _LEADING, words))
        return re.sub(r" ([,;.])", r"\1", " ".join(words))


def _cells(start: int, length: int, side: int, count: int) -> NDArray[np.int64]:
    """Return the cells of a map that a span of pixels touches; it may run over the border."""
    first, last = start * count // side, -(-(start + length) * count // side)
    return np.arange(first, max(last, first + 1)) % count


def map_phrases(prompt: str, tokenizer: Any, network: Any, denoiser: Denoiser, latents: Tensor) -> PhraseMaps:
    """Find where each phrase of a prompt belongs in an image.

    Args:
        prompt: Prompt of the whole image.
        tokenizer: Tokenizer of the first text encoder.
        network: U-Net with cross-attention.
        denoiser: Denoiser of that network with the prompt, for one patch of the size of the image.
        latents: Latents of the image at the native size, ``(C, h, w)``.
    """
    phrases = split_phrases(prompt)
    attention = _look(network, denoiser, latents)  # (L, h, w)
    maps: list[Tensor] = []
    at = 1  # after the token that begins a prompt
    for phrase in phrases:
        # the last word that says something is the thing; its attributes are attended to elsewhere, too
        told: Tensor | None = None
        for word in phrase:
            count = len(tokenizer(word, add_special_tokens=False).input_ids)
            found, at = attention[at : at + count], at + count
            if len(found) and word.lower() not in _EMPTY:
                told = _evened(found.mean(dim=0))
        # what cannot be told, beyond the longest prompt for one, belongs everywhere
        maps.append(torch.ones_like(attention[0]) if told is None else told)
    return PhraseMaps(phrases, torch.stack(maps).numpy() if maps else np.zeros((0, 1, 1), np.float32))


def _evened(values: Tensor) -> Tensor:
    """Return a map stretched to [0, 1]; one without differences is 1."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.ones_like(values)


def _look(network: Any, denoiser: Denoiser, latents: Tensor) -> Tensor:
    """Return the mean attention of all cross-attention layers to each token, ``(L, h, w)`` on the CPU."""
    found: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(_recorder(found, latents.shape[1:]), with_kwargs=True)
        for name, layer in network.named_modules()
        if name.endswith("attn2")
    ]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for share in _SHARES:
                step = int(share * denoiser.num_steps)
                noise = torch.randn(latents.shape, generator=generator)[None].to(denoiser.device)
                x = denoiser.add_noise(latents[None].to(denoiser.device), noise, step)
                denoiser.predict(x, step, [(0, 0)])
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found).mean(dim=0)


def _recorder(found: list[Tensor], size: Sequence[int]) -> Callable[..., None]:
    """Return a hook of a cross-attention layer that notes what its last sample attends to."""

    def record(layer: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        hidden: Tensor = args[0] if args else options["hidden_states"]
        text = args[1] if len(args) > 1 else options["encoder_hidden_states"]
        text = text[0] if isinstance(text, tuple) else text  # beside images of an IP-Adapter
        query, key = layer.head_to_batch_dim(layer.to_q(hidden[-1:])), layer.to_k(text[-1:])
        scores: Tensor = layer.get_attention_scores(query, layer.head_to_batch_dim(key))
        scores = scores.float().mean(dim=0).T  # (L, N)
        shrunk = round((size[0] * size[1] / scores.shape[1]) ** 0.5)
        scores = scores.unflatten(1, (size[0] // shrunk, size[1] // shrunk))[None]
        found.append(F.interpolate(scores, size=tuple(size), mode="bilinear")[0].cpu())

    return record
