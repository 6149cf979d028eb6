# SPDX-License-Identifier: Apache-2.0
"""Times decoding: with a cache against none, and held to the grammar against free.

``python bench_decoding.py [--model vitron-tiny] [--tokens 256] [--rounds 3] [--json]``. Both sides of a ratio
take turns within one run, on the same prompt; the model is made to write on past the end of its reply, the
tokens themselves do not matter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import DynamicCache
from vitron.data import Example, MediaPart, Message, TextPart
from vitron.engine import Vitron
from vitron.media import Artefact
from vitron.model.decoding import CallState


def prompt(vitron: Vitron) -> dict[str, torch.Tensor]:
    """Return a picture and a question as the model takes them."""
    picture = Artefact("image", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    message = Message(role="user", content=(MediaPart(media=0), TextPart(text="segment the red circle")))
    return vitron.processor([Example(task="", messages=(message,), media=(picture,))]).inputs()


@torch.no_grad()
def cached(
    vitron: Vitron, inputs: dict[str, torch.Tensor], tokens: int, *, state: CallState | None = None
) -> float:
    """Write tokens with a cache, held to the grammar if a state is given; return the seconds."""
    start = time.perf_counter()
    cache = DynamicCache()
    found = vitron._step(cache, **inputs)
    for _ in range(tokens):
        logits = found.logits[0, -1]
        if state is not None:
            logits = state.constrain(logits)
        # past the end: the likeliest token but that
        logits[vitron.processor.end_id] = float("-inf")
        token = int(logits.argmax())
        if state is not None:
            state.advance(token)
        found = vitron._step(cache, input_ids=torch.tensor([[token]]))
    return time.perf_counter() - start


@torch.no_grad()
def recomputed(vitron: Vitron, inputs: dict[str, torch.Tensor], tokens: int) -> float:
    """Write tokens without a cache, reading dialogue and picture anew for each; return the seconds."""
    start = time.perf_counter()
    ids = inputs["input_ids"]
    rest = {name: each for name, each in inputs.items() if name not in ("input_ids", "attention_mask")}
    for _ in range(tokens):
        mask = torch.ones_like(ids)
        logits = vitron.model(ids, mask, use_cache=False, logits_to_keep=1, **rest).logits[0, -1]
        logits[vitron.processor.end_id] = float("-inf")
        ids = torch.cat([ids, logits.argmax().view(1, 1)], 1)
    return time.perf_counter() - start


def interleaved(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Return the medians of both and of their ratios, taken in turns after a round that does not count."""
    first(), second()
    pairs = [(first(), second()) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vitron-tiny")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    vitron = Vitron.from_pretrained(options.model, device="cpu")
    inputs = prompt(vitron)
    whole, fast, gain = interleaved(
        lambda: recomputed(vitron, inputs, options.tokens),
        lambda: cached(vitron, inputs, options.tokens),
        options.rounds,
    )
    held, free, cost = interleaved(
        lambda: cached(vitron, inputs, options.tokens, state=CallState(vitron.vocabulary)),
        lambda: cached(vitron, inputs, options.tokens),
        2 * options.rounds + 1,
    )
    rows = {
        "tokens": options.tokens,
        "recomputed_s": round(whole, 3),
        "cached_s": round(fast, 3),
        "gain": round(gain, 2),
        "constrained_s": round(held, 3),
        "free_s": round(free, 3),
        "cost_of_grammar_percent": round(100 * (cost - 1), 2),
    }
    if options.json:
        print(json.dumps(rows))
        return
    print("| measure | value |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name.replace('_', ' ')} | {value} |")


if __name__ == "__main__":
    main()
