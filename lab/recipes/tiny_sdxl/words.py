# SPDX-License-Identifier: Apache-2.0
"""The text side: tokenizers that know every caption word, two small CLIP towers, captions as tokens."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from shapeworld import captions, scene_rng
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from recipes.tiny_sdxl.images import SOURCES, WORLD_SEED, Kind, scene_of

WORDS_FILE = Path(__file__).with_name("words.json")
START, END, PAD_2 = "<|startoftext|>", "<|endoftext|>", "!"
POSITIONS = 24  # three things with their materials and the ground, start and end
WIDTH, LAYERS, HEADS = 64, 2, 4
TIME_WIDTH = 16  # of each of the six numbers of an image's size and place
CAPTIONS = 23  # purpose number of the stream of random numbers that captions are drawn from
VARIANTS = 8  # captions kept per image
LENGTHS: tuple[captions.Length, ...] = ("short", "medium")


def learn_words(words: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    """Learn vocabulary and merges in which every given word is one token.

    Merges are learnt from each word once, to the end, so that the order in which a reader replays them is
    the order in which they were made. Merges put together word by word would break words that share pairs.

    Args:
        words: Lower case.

    Returns:
        Numbers of the tokens, ``PAD_2`` first, and the merges, best first, both as CLIP writes them.
    """
    # the specials, then printable characters, alone and at the end of a word, so that any text can be spelt
    alphabet = [
        PAD_2,
        *(c for c in string.digits + string.ascii_lowercase + string.punctuation if c != PAD_2),
    ]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    learner.train_from_iterator(sorted(words), trainer)
    merges = [(left, right) for left, right in _merges_of(learner)]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *(left + right for left, right in merges)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    return vocabulary, [f"{left} {right}" for left, right in merges]


def _merges_of(learner: Tokenizer) -> list[tuple[str, str]]:
    pairs: list[list[str]] = json.loads(learner.to_str())["model"]["merges"]
    return [(left, right) for left, right in pairs]


def kept_words() -> tuple[dict[str, int], list[str]]:
    """Return the vocabulary and the merges that the shipped weights were trained with."""
    kept = json.loads(WORDS_FILE.read_text("utf-8"))
    return kept["vocabulary"], kept["merges"]


def build_tokenizers() -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Return the two tokenizers; as in SDXL they differ in what fills up a short text only.

    Learnt once and kept: the trainer breaks ties at random, so that two calls of :func:`learn_words` number
    the words differently, and a network trained with one numbering misreads the other.
    """
    vocabulary, merges = kept_words()
    pairs = [tuple(merge.split(" ")) for merge in merges]
    first, second = (
        CLIPTokenizer(vocab=vocabulary, merges=pairs, pad_token=pad, model_max_length=POSITIONS)
        for pad in (END, PAD_2)
    )
    return first, second


def build_towers(
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Return the two untrained towers for these tokenizers."""
    configs = [
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=POSITIONS,
            hidden_act=activation,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        for tokenizer, activation in zip(tokenizers, ("quick_gelu", "gelu"), strict=True)
    ]
    return CLIPTextModel(configs[0]), CLIPTextModelWithProjection(configs[1])


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> NDArray[np.int32]:
    """Return ``(B, POSITIONS)`` int32, cut and filled up as the pipeline does it."""
    rows = tokenizer(texts, padding="max_length", max_length=POSITIONS, truncation=True)["input_ids"]
    return np.array(rows, dtype=np.int32)


def refill(tokens: Tensor, end: int, pad: int) -> Tensor:
    """Turn tokens of the first tokenizer into those of the second: other filling after the first end."""
    ends = tokens == end
    return torch.where(ends & (ends.cumsum(dim=1) > 1), pad, tokens)


def encode_tokens(
    towers: tuple[CLIPTextModel, CLIPTextModelWithProjection], tokens: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what SDXL reads: both last but one layers ``(B, L, 2 * WIDTH)``, and pooled ``(B, WIDTH)``."""
    first = towers[0](tokens[0], output_hidden_states=True)
    second = towers[1](tokens[1], output_hidden_states=True)
    hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return hidden, second.text_embeds


def captions_of(kind: Kind, number: int) -> list[str]:
    """Return the captions of a training image: half short, half medium, drawn from its number."""
    scene = scene_of(kind, number)
    rng = scene_rng(WORLD_SEED, SOURCES[kind].first + number, CAPTIONS)
    return [captions.caption(scene, rng, length=LENGTHS[i % len(LENGTHS)]) for i in range(VARIANTS)]
