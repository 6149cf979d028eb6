# SPDX-License-Identifier: Apache-2.0
"""Times decoding: with and without a cache, constrained and unconstrained, and a message with a call.

``python bench_decoding.py [--model vitron-tiny] [--tokens 256] [--rounds 3] [--json]``. Both sides of a
ratio take turns within one run, on the same prompt; the model generates past the end of its message, as the
tokens do not matter. The gain of the cache grows with the length: it is reported for all tokens together
and for the last sixteen, by the median over rounds and by the fastest round of both sides, since one token
is limited by memory and a whole prompt by computation. A message with a call is streamed as it is, and with
one pass for each forced token. The matrix products of a token are timed alone too, in a row and with
pauses. Times are CPU time of one thread, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch
from transformers import DynamicCache
from vitron.data import Example
from vitron.model.constraints import CallState
from vitron.model.engine import Vitron
from vitron.protocol.media import Artefact
from vitron.protocol.messages import MediaPart, Message, TextPart
from vitron.protocol.sampling import SamplingParams

LAST = 16
PAUSE_US = 50  # about what passes within the model between two matrix products
Run = Callable[[], list[float]]


def question() -> Example:
    """Return an image and a user message."""
    image = Artefact("image", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    message = Message(role="user", content=(MediaPart(media=0), TextPart(text="segment the red circle")))
    return Example(task="", messages=(message,), media=(image,))


@torch.inference_mode()
def cached(
    vitron: Vitron, inputs: dict[str, torch.Tensor], tokens: int, *, state: CallState | None = None
) -> list[float]:
    """Generate tokens with a cache, constrained if a state is given; return the seconds of each."""
    times = list[float]()
    start = time.thread_time()
    cache = DynamicCache()
    found = vitron.forward(cache, **inputs)
    for _ in range(tokens):
        logits = found.logits[0, -1]
        # past the end: the likeliest other token
        logits[vitron.encoder.end_id] = float("-inf")
        token = int(logits.argmax())
        if state is not None and not state.try_advance(token):  # as the decoder does
            token = int(state.constrain(logits).argmax())
            state.advance(token)
        found = vitron.forward(cache, input_ids=torch.tensor([[token]]))
        times.append(time.thread_time() - start)
        start = time.thread_time()
    return times


@torch.inference_mode()
def recomputed(vitron: Vitron, inputs: dict[str, torch.Tensor], tokens: int) -> list[float]:
    """Generate tokens without a cache; return the seconds of each."""
    times = list[float]()
    ids = inputs["input_ids"]
    rest = {name: each for name, each in inputs.items() if name not in ("input_ids", "attention_mask")}
    for _ in range(tokens):
        start = time.thread_time()
        mask = torch.ones_like(ids)
        logits = vitron.model(ids, mask, use_cache=False, logits_to_keep=1, **rest).logits[0, -1]
        logits[vitron.encoder.end_id] = float("-inf")
        ids = torch.cat([ids, logits.argmax().view(1, 1)], 1)
        times.append(time.thread_time() - start)
    return times


def streamed(vitron: Vitron, example: Example) -> list[float]:
    """Stream a message; return the seconds of each token."""
    times, start = list[float](), time.thread_time()
    for _ in vitron.stream(example.messages, example.media, (), SamplingParams()):
        times.append(time.thread_time() - start)
        start = time.thread_time()
    return times


def streamed_singly(vitron: Vitron, example: Example) -> list[float]:
    """Stream a message with a pass for each token."""
    with patch.object(CallState, "advance_forced", lambda *_: []):
        return streamed(vitron, example)


@torch.inference_mode()
def products(vitron: Vitron, *, pause: float = 0.0, rounds: int = 41) -> float:
    """Return the seconds that the language model's matrix products for one token take together.

    Args:
        vitron: Model.
        pause: Seconds of waiting before each, in which nothing is computed and no memory used.
        rounds: Number of rounds for the median.
    """
    layers = [each for each in vitron.model.language_model.modules() if isinstance(each, torch.nn.Linear)]
    states = {each.in_features: torch.randn(1, 1, each.in_features) for each in layers}
    times = list[float]()
    for _ in range(rounds):
        spent = 0.0
        for layer in layers:
            due = time.thread_time() + pause
            while time.thread_time() < due:
                pass
            start = time.thread_time()
            layer(states[layer.in_features])
            spent += time.thread_time() - start
        times.append(spent)
    return statistics.median(times)


def interleaved(first: Run, second: Run, rounds: int) -> list[tuple[list[float], list[float]]]:
    """Return what both took, in turns after a round that does not count."""
    first(), second()
    return [(first(), second()) for _ in range(rounds)]


def ratio(pairs: list[tuple[list[float], list[float]]], *, last: int = 0) -> tuple[float, float, float]:
    """Return the medians of both sides and of their ratios, of all tokens or of the last ones."""
    sums = [(sum(a[-last:]), sum(b[-last:])) for a, b in pairs]
    first, second = (statistics.median(side) for side in zip(*sums, strict=True))
    return first, second, statistics.median(a / b for a, b in sums)


def fastest(pairs: list[tuple[list[float], list[float]]], *, last: int = 0) -> tuple[float, float, float]:
    """Return the least that either side took, and their ratio."""
    first, second = (min(sum(times[-last:]) for times in side) for side in zip(*pairs, strict=True))
    return first, second, first / second


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vitron-tiny")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    vitron = Vitron.from_pretrained(options.model, device="cpu")
    example, tokens = question(), options.tokens
    inputs = vitron.encoder([example]).inputs()
    pairs = interleaved(
        lambda: recomputed(vitron, inputs, tokens), lambda: cached(vitron, inputs, tokens), options.rounds
    )
    whole, fast, gain = ratio(pairs)
    whole_last, fast_last, gain_last = ratio(pairs, last=LAST)
    best_whole, best_fast, best_gain = fastest(pairs)
    held, free, cost = ratio(
        interleaved(
            lambda: cached(vitron, inputs, tokens, state=CallState(vitron.grammar)),
            lambda: cached(vitron, inputs, tokens),
            2 * options.rounds + 1,
        )
    )
    replies = interleaved(
        lambda: streamed_singly(vitron, example), lambda: streamed(vitron, example), 10 * options.rounds
    )
    singly, together, saved = ratio(replies)
    rows = {
        "tokens": tokens,
        "recomputed_s": round(whole, 3),
        "cached_s": round(fast, 3),
        "gain": round(gain, 2),
        "fastest_recomputed_s": round(best_whole, 3),
        "fastest_cached_s": round(best_fast, 3),
        "fastest_gain": round(best_gain, 2),
        f"last_{LAST}_recomputed_ms_each": round(1000 * whole_last / LAST, 2),
        f"last_{LAST}_cached_ms_each": round(1000 * fast_last / LAST, 2),
        f"last_{LAST}_gain": round(gain_last, 2),
        f"last_{LAST}_fastest_gain": round(fastest(pairs, last=LAST)[2], 2),
        "products_of_a_token_ms": round(1000 * products(vitron), 2),
        f"the_same_{PAUSE_US}_us_apart_ms": round(1000 * products(vitron, pause=PAUSE_US / 1e6), 2),
        "constrained_s": round(held, 3),
        "free_s": round(free, 3),
        "cost_of_grammar_percent": round(100 * (cost - 1), 2),
        "call_tokens": len(replies[0][0]),
        "call_pass_for_each_token_s": round(singly, 4),
        "call_s": round(together, 4),
        "call_gain": round(saved, 2),
    }
    if options.json:
        print(json.dumps(rows))
        return
    print("| measure | value |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name.replace('_', ' ')} | {value} |")


if __name__ == "__main__":
    main()
