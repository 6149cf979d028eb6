# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from recipes.tiny_sdxl.commands import HOMES
from recipes.tiny_sdxl.words import (
    POSITIONS,
    build_tokenizers,
    captions_of,
    kept_words,
    learn_words,
    refill,
    tokenize,
)
from shapeworld import captions

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_every_caption_word_is_one_token():
    tokenizer = build_tokenizers()[0]
    for word in captions.WORDS:
        assert len(tokenizer(word)["input_ids"]) == 3, word


def test_words_that_share_pairs_stay_whole():
    vocabulary, merges = learn_words(["green", "greet", "tree", "see"])
    assert {"green</w>", "greet</w>", "tree</w>", "see</w>"} <= set(vocabulary)
    assert len(set(merges)) == len(merges)
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


def test_captions_fit_and_other_text_is_spelt():
    tokenizer = build_tokenizers()[0]
    texts = [text for i in range(100) for text in captions_of("base", i)]
    assert max(len(tokenizer(text)["input_ids"]) for text in texts) <= POSITIONS
    assert (
        tokenizer.decode(tokenizer("a quick zebra!")["input_ids"], skip_special_tokens=True)
        == "a quick zebra !"
    )


def test_both_tokenizers_agree_but_for_the_filling():
    first, second = build_tokenizers()
    texts = ["a red circle", "", "a star and a ring on waves"]
    ours = refill(torch.from_numpy(tokenize(first, texts)), first.eos_token_id, second.pad_token_id)
    assert np.array_equal(ours.numpy(), tokenize(second, texts))
    assert second.pad_token_id != first.pad_token_id


def test_captions_depend_on_the_picture_only():
    assert captions_of("base", 7) == captions_of("base", 7)
    assert len(set(captions_of("base", 7))) > 2


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_the_shipped_words_have_the_numbers_of_the_training(part: str) -> None:
    model = json.loads((HOMES[0] / part / "tokenizer.json").read_text())["model"]
    vocabulary, merges = kept_words()
    assert model["vocab"] == vocabulary
    assert [" ".join(pair) for pair in model["merges"]] == merges
