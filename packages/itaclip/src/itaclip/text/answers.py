# SPDX-License-Identifier: Apache-2.0
"""Prompts for a language model, and the check of its answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from itaclip.text.sources import KINDS, MARK, strip_full_stop

Kind = Literal["definitions", "synonyms"]
Message = dict[str, str]

_RULES = {
    "definitions": """You say what things look like, for people who search for them in photographs.
Answer with one phrase of 8 to 20 words: shape, parts, material, colour, where the thing is seen.
Do not start with an article, do not use the name, write nothing but the phrase.

violin: small curved wooden instrument with four strings, held under the chin and played with a bow
lighthouse: tall round tower on a rocky coast with a bright turning lamp on top""",
    "synonyms": """You know other words for things that are seen in photographs.
Answer with one single word that means the same as the name, or the nearest thing if there is none.
Write nothing but that word.

violin: fiddle
lighthouse: beacon""",
}
# blanks, quotation marks of several languages, marks of emphasis
_QUOTES = " \t\"'`*_\u2018\u2019\u201c\u201d\u00ab\u00bb"
_WORD = re.compile("[^\\W\\d_]+(?:[-'\u2019][^\\W\\d_]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Texts that a language model writes, and their generation.

    Attributes:
        kind: Kind of texts: definitions or synonyms.
        max_words: Upper limit of words in a definition; a synonym has one.
        retries: Number of times that an unusable answer is sent back.
        seed: Random seed for sampling (temperature 0.6, top-p 0.9); greedy by default.
        max_new_tokens: Upper limit of tokens in an answer.
        batch_size: Number of names in one pass.

    Raises:
        ValueError: If a value is out of its range.
    """

    kind: Kind = "definitions"
    max_words: int = 50
    retries: int = 2
    seed: int | None = None
    max_new_tokens: int = 96
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for name, low in (("max_words", 3), ("retries", 0), ("max_new_tokens", 1), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")

    def ask(self, name: str) -> list[Message]:
        """Return the conversation that asks for a name."""
        return [{"role": "system", "content": _RULES[self.kind]}, {"role": "user", "content": f"{name}:"}]

    def ask_again(self, messages: list[Message], answer: str, fault: str) -> list[Message]:
        """Return the conversation that sends an answer back."""
        # without the reason, a greedy model repeats its answer
        reply = {"role": "user", "content": f"That cannot be used: {fault}. Answer again by the rules."}
        return [*messages, {"role": "assistant", "content": answer}, reply]

    def clean(self, raw: str, name: str) -> str:
        """Return an answer without thoughts, quotes, name, mark and full stop."""
        text = re.sub(r"<think>.*?(</think>|$)", "", raw, flags=re.DOTALL)
        lines = [line.strip(_QUOTES) for line in text.splitlines()]
        text = next((line for line in lines if line and not line.startswith("#")), "")
        labels = rf"{re.escape(name)}|answer|definition|synonym|phrase|word"
        before = None
        while text != before:
            before = text
            text = re.sub(
                rf"^(({labels})?\s*({MARK}|->|:|=| - )|-\s|\d+[.)]\s)\s*", "", text, flags=re.IGNORECASE
            )
            text = strip_full_stop(text.strip(_QUOTES))
        return " ".join(text.split())

    def fault(self, text: str, name: str) -> str | None:
        """Return why a cleaned answer cannot be used; ``None`` if it can."""
        words = text.split()
        if not words:
            return "it is empty"
        if "\ufffd" in text or not text.isprintable():
            return "it holds characters that are no text"
        if MARK in text:
            return f"it holds the mark {MARK}"
        if text.casefold() == name.casefold():
            return "it repeats the name"
        if self.kind == "synonyms":
            return None if _WORD.fullmatch(text) else f"{text[:60]!r} is not one word"
        if len(words) < 3:
            return f"{text!r} is too short for a definition"
        if len(words) > self.max_words:
            return f"it has {len(words)} words and may have {self.max_words}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer of a language model for one name.

    Attributes:
        name: Class name.
        text: Usable text; ``None`` if no answer was usable.
        fault: Fault of the last answer, if it was not usable.
        raw: Last answer as the model gave it.
        attempts: Number of answers.
    """

    name: str
    text: str | None
    fault: str | None
    raw: str
    attempts: int
