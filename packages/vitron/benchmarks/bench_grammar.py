# SPDX-License-Identifier: Apache-2.0
"""Times what constraining calls costs per token, for vocabularies of several sizes.

``python bench_grammar.py [--json] [--rounds 5]`` prints a table, or JSON. A message is read token by token:
free text, then a call with its region. ``try`` is the time to check a token that is allowed and to advance
by it, which is all that greedy decoding mostly needs; ``mask`` is the time to learn which tokens may come,
``step`` that and the advance by one token, ``apply`` what the mask costs on top, on logits in fp32. Times are
CPU time of the thread, so that other work on the machine does not count. With xgrammar installed, its
structural tag of the same calls is timed beside; corners that are in order are beyond it, and so are tags in
capitals.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import string
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode
from vitron.model.constraints import CallGrammar, CallState
from vitron.protocol import MODULES
from vitron.protocol.contract import Signal

SIZES = (768, 60_000, 150_000)
TAGS = [f"<{slash}{word}>" for word in ("module", "instruction", "region") for slash in ("", "/")]
SIGNALS = [Signal(kind=kind, index=index) for kind in ("specific", "shared") for index in range(4)]
SPECIAL = [
    "</s>",
    "<pad>",
    *(f"<sig_{'s' if each.kind == 'shared' else 'p'}{each.index}>" for each in SIGNALS),
]
TEXT = 'Sure, here is the leftmost red circle, a < b and "that" one: 日本. <module>'
CALL = (
    'B</module> <instruction>segment: the leftmost red circle, 的 and "that" one</instruction> '
    "<region>[129, 45, 600, 810] | 3, 17</region>"
)
PUNCTUATION = string.punctuation
LETTERS = "etaoinshrdlucmfwypvbgkqjxz"
SCRIPTS = ((0x4E00, 0x9FA5), (0x430, 0x44F), (0x3041, 0x3096), (0xAC00, 0xD7A3), (0x900, 0x970))


def texts(size: int) -> list[bytes]:
    """Return tokens as real byte-level vocabularies have them, of several scripts."""
    rng = random.Random(0)
    found = dict.fromkeys([*(each.encode() for each in (*SPECIAL, *TAGS)), *(bytes([n]) for n in range(256))])

    def add(words: Iterable[str], end: float = 1.0) -> None:
        for word in words:
            if len(found) >= end * size:
                return
            found.setdefault(word.encode())

    def word() -> str:
        stem = "".join(rng.choices(LETTERS, weights=range(26, 0, -1), k=rng.randint(2, 10)))
        return rng.choice([stem, f" {stem}", f" {stem}", stem.capitalize(), f" {stem.capitalize()}"])

    def script() -> str:
        low, high = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4)))

    if size > 1000:
        add(str(number) for number in range(10, 1000))
        add(space + a + b for a in PUNCTUATION for b in PUNCTUATION for space in ("", " "))
        add(a + word for a in PUNCTUATION for word in ("\n", "module", "region", "B", "div"))
        add(space * count for space in (" ", "\n", "\t") for count in range(2, 64))
        add((script() for _ in range(size)), 0.2)
    while len(found) < size:
        add([word()])
    return list(found)


def make_encoder(tokens: list[bytes]) -> Any:
    """Return what constrained decoding needs of an encoder, over a byte-level tokenizer with these tokens."""
    table = bytes_to_unicode()
    plain = {(*SPECIAL, *TAGS)[number]: number for number in range(len(SPECIAL) + len(TAGS))}
    names = {"".join(table[byte] for byte in text): number for number, text in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(names | plain, []))
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": [*SPECIAL[2:], *TAGS]})
    known = {text: number for number, text in enumerate(tokens)}
    return SimpleNamespace(
        tokenizer=fast,
        modules=MODULES,
        signals=SIGNALS,
        end_id=0,
        token_id=lambda text: known[text.encode()],
        tokenize=lambda text: split(known, text),
    )


def split(known: dict[bytes, int], text: str) -> list[int]:
    """Return the tokens of a text, the longest first."""
    data, place, out = text.encode(), 0, list[int]()
    while place < len(data):
        end = next(end for end in range(len(data), place, -1) if data[place:end] in known)
        out.append(known[data[place:end]])
        place = end
    return out


def row(name: str, part: str, size: int, times: list[float]) -> dict[str, Any]:
    """Return the figures of one kind of times, in milliseconds."""
    figures = {"mean": statistics.mean(times), "median": statistics.median(times), "worst": max(times)}
    return {"what": name, "part": part, "vocabulary": size} | {
        key: round(1000 * value, 4) for key, value in figures.items()
    }


def timed(work: Callable[[], object]) -> float:
    """Return the CPU time of the thread in seconds."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def ours(size: int, rounds: int) -> list[dict[str, Any]]:
    """Time one vocabulary."""
    tokens = texts(size)
    encoder = make_encoder(tokens)
    grammar, logits = CallGrammar(encoder, size), torch.randn(size)
    compiling = timed(lambda: grammar.matcher("module"))
    times: dict[tuple[str, str], list[float]] = {
        (kind, part): [] for part in ("text", "call") for kind in ("try", "mask", "step", "apply")
    }
    for turn in range(rounds + 1):
        state, ahead = CallState(grammar), CallState(grammar)
        for part, message in (("text", TEXT), ("call", CALL)):
            ids = [*encoder.tokenize(message), *(grammar.signals if part == "call" else [])]
            for token in ids:
                trying = timed(lambda ahead=ahead, token=token: ahead.try_advance(token))
                masking = timed(lambda state=state: (state.allowed(), grammar.refused(state)))
                applying = timed(lambda state=state: state.constrain(logits))
                advancing = timed(lambda state=state, token=token: state.advance(token))
                if turn:  # the first round fills the caches of free text
                    times["try", part].append(trying)
                    times["mask", part].append(masking)
                    times["step", part].append(masking + advancing)
                    times["apply", part].append(max(0.0, applying - masking))
    rows = [row(f"vitron, {kind}", part, size, found) for (kind, part), found in times.items()]
    return [*rows, row("vitron, compile", "once", size, [compiling])]


XGRAMMAR = """root ::= name "</module>" (gap? instruction)+ (gap? region)?
gap ::= " " | "\\n"
name ::= NAMES
instruction ::= "<instruction>" [^<]+ "</instruction>"
region ::= "<region>" body "</region>"
body ::= (box | ("mask_" | "region_") [1-9] [0-9]{0,5} | points | polygon | scribble) span | frames
step ::= "0" | [1-9] [0-9]{0,2}
frame ::= "0" | [1-9] [0-9]{0,4}
box ::= "[" step ", " step ", " step ", " step "]"
pair ::= " [" step ", " step "]"
points ::= "points" (pair | " -[" step ", " step "]"){1,64}
polygon ::= "polygon" pair{3,64}
scribble ::= "scribble" pair{1,64} (";" pair{1,64}){0,15}
span ::= (" @ " frame)? (" " frames)?
frames ::= "| " frame ", " frame
"""


def theirs(size: int, rounds: int) -> list[dict[str, Any]]:
    """Time the structural tag of xgrammar."""
    import xgrammar

    tokens = texts(size)
    known = {text: number for number, text in enumerate(tokens)}
    names = " | ".join(f'"{name}"' for name in MODULES.spellings())
    info = xgrammar.TokenizerInfo(
        tokens, vocab_type=xgrammar.VocabType.RAW, vocab_size=size, stop_token_ids=[0]
    )
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    content = {"type": "grammar", "grammar": XGRAMMAR.replace("NAMES", names)}
    tag = {"begin": "<module>", "content": content, "end": "<sig_p0>"}
    form = {"type": "triggered_tags", "triggers": ["<module>"], "tags": [tag]}
    start = time.thread_time()
    compiled = compiler.compile_structural_tag(xgrammar.StructuralTag(format=form))
    compiling, mask = time.thread_time() - start, xgrammar.allocate_token_bitmask(1, size)
    times: dict[tuple[str, str], list[float]] = {
        (kind, part): [] for part in ("text", "call") for kind in ("mask", "step")
    }
    for turn in range(rounds + 1):
        matcher = xgrammar.GrammarMatcher(compiled)
        for part, message in (("text", TEXT), ("call", CALL)):
            for token in split(known, message):
                masking = timed(lambda matcher=matcher: matcher.fill_next_token_bitmask(mask))
                advancing = timed(lambda matcher=matcher, token=token: matcher.accept_token(token))
                if turn:
                    times["mask", part].append(masking)
                    times["step", part].append(masking + advancing)
    rows = [row(f"xgrammar, {kind}", part, size, found) for (kind, part), found in times.items()]
    return [*rows, row("xgrammar, compile", "once", size, [compiling])]


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    gc.disable()  # as timeit does
    rows = list[dict[str, Any]]()
    for size in SIZES:
        rows += ours(size, given.rounds)
        if find_spec("xgrammar") is not None:
            rows += theirs(size, given.rounds)
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    print(
        "| ms per token | part | vocabulary | mean | median | worst |\n| --- | --- | --- | --- | --- | --- |"
    )
    for each in rows:
        values = " | ".join(
            str(each[key]) for key in ("what", "part", "vocabulary", "mean", "median", "worst")
        )
        print(f"| {values} |")


if __name__ == "__main__":
    main()
