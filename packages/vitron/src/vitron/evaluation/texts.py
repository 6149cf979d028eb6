# SPDX-License-Identifier: Apache-2.0
"""Scores of answers and captions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

__all__ = ["cider", "cider_scores", "meteor", "meteor_scores", "normalise_answer", "vqa_accuracy", "words_of"]

_NUMBERS = {
    name: str(value)
    for value, name in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_CAPTION_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def normalise_answer(text: str) -> str:
    """Normalise an answer: lower case, no articles and punctuation, numbers as digits.

    Example:
        >>> normalise_answer(" The two dogs. ")
        '2 dogs'
    """
    plain = re.sub(r"(?<=\d),(?=\d)", "", text.lower())
    plain = re.sub(r"[^\w\s.'-]|(?<!\d)\.|\.(?!\d)", " ", plain)
    kept = (_NUMBERS.get(word, word) for word in plain.split() if word not in _ARTICLES)
    return " ".join(kept)


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Return the agreement of an answer with human answers, after :func:`normalise_answer`.

    Args:
        answer: Answer to be scored.
        answers: Human answers. With fewer than ten the score is 0 or 1; with ten or more it is the
            leave-one-out mean of ``min(1, agreeing / 3)``.

    Raises:
        ValueError: If there are no answers.

    Source: VQA, Antol et al., ICCV 2015, Sec. 3.
    """
    if not answers:
        raise ValueError("there must be at least one true answer, got none")
    ours, theirs = normalise_answer(answer), [normalise_answer(each) for each in answers]
    if len(theirs) < 10:
        return float(ours in theirs)
    agree = theirs.count(ours)
    left_out = [agree - (each == ours) for each in theirs]
    return float(np.mean([min(1.0, count / 3) for count in left_out]))


def words_of(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation."""
    return _CAPTION_TOKEN.findall(caption.lower())


def cider(found: Sequence[str], true: Sequence[Sequence[str]]) -> float:
    """Return the mean of :func:`cider_scores`, 0 without a caption."""
    scores = cider_scores(found, true)
    return float(np.mean(scores)) if scores else 0.0


def cider_scores(found: Sequence[str], true: Sequence[Sequence[str]]) -> list[float]:
    """Return CIDEr-D of each caption of a corpus, mostly from 0 to 10; papers print 100 times the value.

    The score is that of pycocoevalcap. The document frequencies come from the true captions of this corpus.
    The words are those of :func:`words_of` and not of the Stanford tokenizer, which needs Java: hyphens and
    rare punctuation differ.

    Args:
        found: One caption for each image.
        true: True captions of each image.

    Raises:
        ImportError: If pycocoevalcap is not installed.
        ValueError: If lengths differ or an image has no true caption.
    """
    _check(found, true)
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise ImportError('CIDEr needs pycocoevalcap: pip install "vitron[evaluate]"') from error
    ours = {at: [" ".join(words_of(each))] for at, each in enumerate(found)}
    theirs = {at: [" ".join(words_of(each)) for each in group] for at, group in enumerate(true)}
    return [float(each) for each in Cider().compute_score(theirs, ours)[1]] if found else []


class _NoSynonyms:
    """Replacement for WordNet, which would have to be downloaded."""

    def synsets(self, word: str) -> list[object]:
        """Return no synonyms."""
        return []


def meteor(found: Sequence[str], true: Sequence[Sequence[str]]) -> float:
    """Return the mean of :func:`meteor_scores`, 0 without a caption."""
    scores = meteor_scores(found, true)
    return float(np.mean(scores)) if scores else 0.0


def meteor_scores(found: Sequence[str], true: Sequence[Sequence[str]]) -> list[float]:
    """Return METEOR of nltk of each caption in [0, 1], by exact words and stems, without synonyms.

    The weights are those of the first METEOR. The published figures come from the Java program of version
    1.5, which also matches synonyms and paraphrases and has other weights: compare such scores only.

    Args:
        found: One caption for each image.
        true: True captions of each image.

    Raises:
        ImportError: If nltk is not installed.
        ValueError: If lengths differ or an image has no true caption.
    """
    _check(found, true)
    try:
        from nltk.translate.meteor_score import meteor_score
    except ImportError as error:
        raise ImportError('METEOR needs nltk: pip install "vitron[evaluate]"') from error
    return [
        meteor_score(
            [words_of(each) for each in group],
            words_of(ours),
            wordnet=_NoSynonyms(),  # pyright: ignore[reportArgumentType]  # only synsets is called
        )
        for ours, group in zip(found, true, strict=True)
    ]


def _check(found: Sequence[str], true: Sequence[Sequence[str]]) -> None:
    if len(found) != len(true) or not all(true):
        raise ValueError(
            f"each caption needs at least one true one, got {len(found)} captions and {len(true)} groups"
        )
