# SPDX-License-Identifier: Apache-2.0
"""Times the parser and what holding calls to the grammar costs per token.

``python bench_language.py [--json] [--rounds 9]`` prints a table, or JSON. The parser reads texts of 8 to 64
thousand characters: words, calls, and what is hardest for a parser, brackets without end. Its time divided by
the length must not grow. The mask of allowed tokens is taken in free text, in an instruction and in a region,
for vocabularies of 2,000 and 32,000 tokens; that part needs torch and is left out without it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import string
import time
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from vitron.protocol import StreamParser, parse

CALL = "<module>B</module><instruction>segment: the red circle</instruction><region>[1, 2, 30, 400]</region> "
TEXTS = {
    "words": "the quick brown fox jumps over b > c and a < d, ",
    "calls": CALL,
    "open tags": "<module>",
    "open instructions": "<instruction>",
    "broken calls": "<module>B</module><instruction>segment: ",
    "brackets": "<",
    "escapes": "&lt;&amp;",
}
SIZES = (8_192, 16_384, 32_768, 65_536)
STATES = {
    "free text": "Sure, here ",
    "module": "<module>",
    "instruction": "<module>B</module><instruction>segment: the ",
    "region": "<module>B</module><instruction>segment: a</instruction><region>[12, ",
}


def median_ms(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of some rounds in milliseconds, after one that does not count."""
    work()
    times = list[float]()
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def parser_rows(rounds: int) -> list[dict[str, Any]]:
    """Time the parser, at once and in pieces of four characters."""
    rows = list[dict[str, Any]]()
    for name, piece in TEXTS.items():
        for size in SIZES:
            text = (piece * (size // len(piece) + 1))[:size]
            rows.append(
                {"text": name, "characters": size, "ms": median_ms(lambda text=text: parse(text), rounds)}
            )
    text = (CALL * SIZES[-1])[: SIZES[-1]]
    rows.append(
        {"text": "calls, streamed", "characters": len(text), "ms": median_ms(lambda: stream(text), rounds)}
    )
    return rows


def stream(text: str) -> None:
    """Parse a text in chunks."""
    parser = StreamParser()
    for start in range(0, len(text), 4):
        list(parser.feed(text[start : start + 4]))
    parser.close()


def small_encoder(size: int) -> Any:
    """Return what a vocabulary needs of an encoder, with random words, characters and the tags."""
    rng = random.Random(0)
    texts = ["", "", *string.printable, "<module>", "</module>", "<instruction>", "</instruction>"]
    texts += ["<region>", "</region>", *(f"<sig_{kind}{at}>" for kind in "ps" for at in range(4))]
    while len(texts) < size:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8)))
        texts.append(rng.choice(["", " "]) + word)
    signals = [
        SimpleNamespace(kind="specific" if kind == "p" else "shared", index=at)
        for kind in "ps"
        for at in range(4)
    ]
    return SimpleNamespace(
        token_text=texts.__getitem__, token_id=texts.index, end_id=0, pad_id=1, signals=signals, texts=texts
    )


def constrain_again(state: Any, logits: Any) -> None:
    """Apply a mask as in a state that was just reached."""
    state._is_known = False
    state.constrain(logits)


def mask_rows(rounds: int) -> list[dict[str, Any]]:
    """Time one mask, applied to the logits of one row."""
    import torch
    from vitron.model.constraints import CallState, Vocabulary

    rows = list[dict[str, Any]]()
    for size in (2_000, 32_000):
        encoder = small_encoder(size)
        vocabulary, logits = Vocabulary(encoder, size), torch.zeros(size)
        for state_name, text in STATES.items():
            state = CallState(vocabulary)
            state.grammar.advance(text)
            took = median_ms(lambda state=state, logits=logits: constrain_again(state, logits), rounds)
            rows.append({"state": state_name, "vocabulary": size, "ms": took})
    return rows


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments.add_argument("--rounds", type=int, default=9)
    given = arguments.parse_args()
    found = {"parser": parser_rows(given.rounds), "mask": []}
    if find_spec("torch") is not None:
        found["mask"] = mask_rows(given.rounds)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print("| text | characters | ms | ns per character |\n| --- | --- | --- | --- |")
    for row in found["parser"]:
        per = 1e6 * row["ms"] / row["characters"]
        print(f"| {row['text']} | {row['characters']} | {row['ms']:.2f} | {per:.0f} |")
    print("\n| state | vocabulary | ms per token |\n| --- | --- | --- |")
    for row in found["mask"]:
        print(f"| {row['state']} | {row['vocabulary']} | {row['ms']:.3f} |")


if __name__ == "__main__":
    main()
