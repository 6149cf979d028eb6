# SPDX-License-Identifier: Apache-2.0
"""Many conversations at once with a server: time to the first token, and throughput.

    python benchmarks/bench_server.py --model vitron-tiny --conversations 32 --turns 2

Without ``--model`` a script stands in for the model, and the figures are those of the server alone. Prints
one JSON object, or with ``--markdown`` a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import uvicorn
from vitron import SpecialistRegistry
from vitron.demo.painters import toy_registry
from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, MessageGenerator, PlacedRegion
from vitron.protocol.sampling import SamplingParams
from vitron.server import Limits, create_app

MESSAGES = ("draw a red circle and a blue star", "mark the red circle", "how many stars are there?")


class Script:
    """Stands in for a model: 64 pieces, as fast as they are taken."""

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Write."""
        for _ in range(64):
            yield MessageChunk("word ")


def converse(url: str, number: int, turns: int) -> list[tuple[float, float, int]]:
    """Hold one conversation; return for each turn the first token's time, all, and the tokens."""
    found, key = [], None
    with httpx.Client(base_url=url, timeout=600) as client:
        for turn in range(turns):
            body = {
                "model": "vitron",
                "messages": [{"role": "user", "content": MESSAGES[(number + turn) % len(MESSAGES)]}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "vitron": {"conversation": key},
            }
            start, first, tokens = time.perf_counter(), None, 0
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                response.raise_for_status()
                for line in response.iter_lines():
                    if not line.startswith("data: {"):
                        continue
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise RuntimeError(chunk["error"]["message"])
                    key = chunk.get("vitron", {}).get("conversation", key)
                    delta = chunk["choices"][0]["delta"] if chunk["choices"] else {}
                    if first is None and (delta.get("content") or delta.get("tool_calls")):
                        first = time.perf_counter() - start
                    tokens = chunk.get("usage", {}).get("completion_tokens", tokens)
            whole = time.perf_counter() - start
            found.append((whole if first is None else first, whole, tokens))
    return found


def measure(
    generator: MessageGenerator, registry: SpecialistRegistry, options: argparse.Namespace
) -> dict[str, object]:
    """Serve, ask, and return the figures."""
    limits = Limits(generations=options.generations, requests=max(64, options.conversations))
    app = create_app(generator, specialists=registry, limits=limits)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{port}"
        converse(url, 0, 1)  # warms up
        start = time.perf_counter()
        with ThreadPoolExecutor(options.conversations) as pool:
            numbers = range(options.conversations)
            turns = [
                each
                for found in pool.map(lambda n: converse(url, n, options.turns), numbers)
                for each in found
            ]
        seconds = time.perf_counter() - start
        alone = [converse(url, number, 1)[0] for number in range(3)]
        server.should_exit = True
        thread.join(10)
    first, tokens = sorted(each[0] for each in turns), sum(each[2] for each in turns)
    return {
        "model": options.model or "script",
        "conversations": options.conversations,
        "replies": len(turns),
        "generations at a time": options.generations,
        "first token, alone (s)": round(statistics.median(each[0] for each in alone), 3),
        "first token, median (s)": round(statistics.median(first), 3),
        "first token, 95 % (s)": round(first[int(0.95 * (len(first) - 1))], 3),
        "tokens per second, alone": round(sum(each[2] for each in alone) / sum(each[1] for each in alone), 1),
        "tokens per second": round(tokens / seconds, 1),
        "replies per second": round(len(turns) / seconds, 2),
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
    }


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model by name or folder; else a script")
    parser.add_argument("--conversations", type=int, default=32)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--generations", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    registry = toy_registry()
    generator: MessageGenerator = Script()
    if options.model:
        from vitron.model.batching import ContinuousBatcher
        from vitron.model.engine import Vitron
        from vitron.specialists.mask_head import MaskHeadSpecialist

        vitron = generator = Vitron.from_pretrained(options.model, device=options.device)
        if options.generations > 1:
            generator = ContinuousBatcher(vitron, rows=options.generations)
        registry.register("mask-head", lambda: MaskHeadSpecialist(vitron.mask))
    figures = measure(generator, registry, options)
    if options.markdown:
        print("| figure | value |\n| --- | --- |")
        print("\n".join(f"| {name} | {value} |" for name, value in figures.items()))
    else:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
