# SPDX-License-Identifier: Apache-2.0
"""Prompts of any length through CLIP text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def encode_clip(
    tokenizer: Any, encoder: Any, prompts: Sequence[str], *, chunks: int, hidden: int | None
) -> tuple[Tensor, Tensor | None]:
    """Encode prompts of any length with a CLIP text encoder.

    Each prompt is split into chunks that fit, every chunk gets its own start and end token, and the
    embeddings of the chunks are concatenated. A prompt of one chunk is encoded exactly as in the pipelines.

    Args:
        tokenizer: The tokenizer of the encoder.
        encoder: A CLIP text model, with projection or without.
        prompts: Prompts, one per image.
        chunks: Number of chunks, at least :func:`num_chunks`.
        hidden: Index of the hidden layer to take, or ``None`` for the normalised last one.

    Returns:
        Embeddings ``(B, chunks * positions, C)``, and the pooled projection of each prompt's first chunk,
        which holds its beginning, ``(B, C)``; ``None`` if the encoder has no projection.

    Source: the authors' code splits the same way but has no pooled vectors, so that SDXL fails on long
        prompts.
    """
    pieces = [_pieces(tokenizer, prompt, chunks) for prompt in prompts]
    ids = torch.tensor([piece for each in pieces for piece in each], device=encoder.device)  # (B * chunks, L)
    mask = None
    if getattr(encoder.config, "use_attention_mask", False):
        mask = (ids != tokenizer.pad_token_id).long()
    with torch.no_grad():
        out = encoder(ids, attention_mask=mask, output_hidden_states=hidden is not None)
    tokens = out.last_hidden_state if hidden is None else out.hidden_states[hidden]
    embeds = tokens.unflatten(0, (len(prompts), chunks)).flatten(1, 2)  # (B, chunks * L, C)
    pooled = getattr(out, "text_embeds", None)
    return embeds, None if pooled is None else pooled[::chunks]


def num_chunks(tokenizer: Any, prompts: Sequence[str]) -> int:
    """Return the number of chunks of the longest prompt."""
    window = int(tokenizer.model_max_length) - 2
    return max(1, *(-(-len(_token_ids(tokenizer, prompt)) // window) for prompt in prompts))


def _token_ids(tokenizer: Any, prompt: str) -> list[int]:
    return list(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)


def _pieces(tokenizer: Any, prompt: str, chunks: int) -> list[list[int]]:
    window = int(tokenizer.model_max_length) - 2
    ids = _token_ids(tokenizer, prompt)
    found: list[list[int]] = []
    for index in range(chunks):
        inside = ids[index * window : (index + 1) * window]
        padding = [tokenizer.pad_token_id] * (window - len(inside))
        found.append([tokenizer.bos_token_id, *inside, tokenizer.eos_token_id, *padding])
    return found
