# SPDX-License-Identifier: Apache-2.0
"""Times the parser.

``python bench_language.py [--json] [--rounds 9]`` prints a table, or JSON. It reads texts of 8 to 64
thousand characters: words, calls, and what is hardest for a parser, brackets without end. Its time divided
by the length must not grow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
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


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments.add_argument("--rounds", type=int, default=9)
    given = arguments.parse_args()
    found = parser_rows(given.rounds)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print("| text | characters | ms | ns per character |\n| --- | --- | --- | --- |")
    for row in found:
        per = 1e6 * row["ms"] / row["characters"]
        print(f"| {row['text']} | {row['characters']} | {row['ms']:.2f} | {per:.0f} |")


if __name__ == "__main__":
    main()
