# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
import torch
from itaclip.text.prompts import check_names

WORDS = {"<pad>": 0, "<unk>": 1, "<start>": 2, "red": 3, "thing": 4, "leaves": 5, "<end>": 6}


def closed(texts, context_length=8):
    """A tokenizer of a closed vocabulary, as small models have."""
    rows = torch.zeros(len(texts), context_length, dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        ids = [2, *(WORDS.get(word, 1) for word in text.split()), 6][:context_length]
        row[: len(ids)] = torch.tensor(ids)
    return rows


closed.tokenizer = SimpleNamespace(unk_token_id=1)


def check(*names, background=False):
    check_names(closed, names, range(len(names)), 8, background=background)


def test_names_without_a_known_word_are_refused():
    check("red thing", "leaves")
    check("red zebra")
    with pytest.raises(ValueError, match=r"'zebra' has no word that .* vocabulary knows: take another"):
        check("red thing", "zebra")


def test_the_words_of_a_small_vocabulary_are_listed(monkeypatch):
    vocabulary = {"<pad>": 0, "thing": 3, "red": 4}
    monkeypatch.setattr(closed.tokenizer, "get_vocab", lambda: vocabulary, raising=False)
    with pytest.raises(ValueError, match=r"knows: take its words \(red, thing\) or another model"):
        check("zebra")
    monkeypatch.setattr("itaclip.text.prompts._FEW_WORDS", 1)
    with pytest.raises(ValueError, match="knows: take another model"):
        check("zebra")


def test_names_that_the_model_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="'red zebra' and 'red lion' are the same tokens"):
        check("red zebra", "red lion")
    # words of the background may say what a class says
    check("leaves", "leaves", background=True)
