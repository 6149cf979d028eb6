# SPDX-License-Identifier: Apache-2.0
"""The word tokenizer: a closed vocabulary, in the files that open_clip reads through transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from recipes.tiny_clip.scenes import WORDS

CONTEXT_LENGTH = 32
PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"
# the text tower is read at the highest id, so the end comes last; zeros fill the rest
VOCABULARY = (PAD, UNKNOWN, START, *WORDS, END)
IDS = {word: i for i, word in enumerate(VOCABULARY)}


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer; capitals and punctuation are dropped, other words become ``<unk>``."""
    tokenizer = Tokenizer(WordLevel(IDS, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex("[^a-z0-9]+"), " ")]
    )
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, IDS[START]), (END, IDS[END])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        model_max_length=CONTEXT_LENGTH,
    ).save_pretrained(folder)


def encode(texts: list[list[str]]) -> Tensor:
    """Return ``(B, CONTEXT_LENGTH)`` int64 for words, as the saved tokenizer does for sentences."""
    rows = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.int64)
    for row, words in zip(rows, texts, strict=True):
        ids = [IDS.get(word, IDS[UNKNOWN]) for word in words[: CONTEXT_LENGTH - 2]]
        ids = [IDS[START], *ids, IDS[END]]
        row[: len(ids)] = torch.tensor(ids)
    return rows
