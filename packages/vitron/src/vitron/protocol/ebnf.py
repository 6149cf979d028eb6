# SPDX-License-Identifier: Apache-2.0
"""Grammar of calls in EBNF, for servers that run xgrammar, such as vLLM, SGLang and TensorRT-LLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vitron.protocol.grammar import MAX_FRAME_DIGITS, call_rules, region_rules
from vitron.protocol.lexer import MAX_SPACES, WORDS
from vitron.protocol.modules import MODULES, ModuleRegistry

__all__ = ["call_ebnf"]

# what may be said only beside something else; Python's idea of white space
_WHITE = "".join(f"\\u{number:04x}" for number in range(0x3001) if chr(number).isspace())
_TAG_SPACE = r" \t\r\n"
_CORNERS = 'STEP "," " "? STEP "," " "? STEP "," " "? STEP'


def call_ebnf(modules: ModuleRegistry = MODULES, *, signals: Sequence[str] = (), spaced: bool = False) -> str:
    """Return the grammar of whole messages in the EBNF of xgrammar.

    It is that of :func:`vitron.call_grammar` with two differences: EBNF cannot say that corners and frames
    are in order, which the parser reports; and a region tag encloses a region wherever it stands.

    Args:
        modules: Modules that may be called.
        signals: Signal tokens behind each call, by name as ``<sig_p0>``.
        spaced: Whether tags, numbers and punctuation may have a space before them, as tokenizers add that
            decode words with spaces between them.

    Raises:
        ValueError: If a signal token is given by id, which is not text.

    Example:
        >>> call_ebnf().startswith("root ::= free")
        True
    """
    for each in signals:
        if each.startswith("<["):
            raise ValueError(f"EBNF holds text: give signals by name such as <sig_p0>, got {each}")
    gap = '" "?' if spaced else ""
    rules = {"root": "free", **dict(_free_text())}
    rules |= call_rules(modules, [f'"{each}"' for each in signals] or ['""'], spaced=spaced)
    rules |= region_rules(gap, box="corners", frames='FRAME "," " "? FRAME')
    rules |= {
        "corners": f'{_CORNERS} {gap} "]" span',
        "TEXT": rf'[{_WHITE}]* (SAID [^<]* | ":" [{_WHITE}]* (SAID | ":") [^<]*)',
        "LEADING_TEXT": rf"[:{_WHITE}]{{0,200}} SAID [^<]{{0,200}}",
        "SAID": f"[^<:{_WHITE}]",
        "GAP": rf"[ \n]{{1,{2 if spaced else 1}}}",
        "STEP": '"0" | [1-9] [0-9]{0,2}',
        "FRAME": f'"0" | [1-9] [0-9]{{0,{MAX_FRAME_DIGITS - 1}}}',
        "HANDLE": "[1-9] [0-9]{0,5}",
    }
    return "".join(f"{name} ::= {body}\n" for name, body in rules.items())


def _free_text() -> Iterator[tuple[str, str]]:
    """Yield the rules of text outside calls: one for each beginning of an opening tag that it may end with.

    Tags are as the lexer reads them: in any case, with white space behind the bracket and the word.
    """
    yield "free", '("" | [^<] free | "<" lt0)'
    starts = "".join(f" | [{word[0]}{word[0].upper()}] {word}1" for word in WORDS)
    firsts = "".join(word[0] + word[0].upper() for word in WORDS)
    for count in range(MAX_SPACES + 1):
        yield f"lt{count}", _state(f"lt{count + 1}" if count < MAX_SPACES else None, starts, firsts)
    for word in WORDS:
        for place in range(1, len(word)):
            letters = word[place] + word[place].upper()
            following = f"{word}{place + 1}" if place + 1 < len(word) else f"{word}_end0"
            yield f"{word}{place}", _state(None, f" | [{letters}] {following}", letters)
        for count in range(MAX_SPACES + 1):
            spaced = f"{word}_end{count + 1}" if count < MAX_SPACES else None
            yield f"{word}_end{count}", _state(spaced, f' | ">" from_{word} free', ">")


def _state(spaced: str | None, following: str, letters: str) -> str:
    """Return a rule of free text.

    Args:
        spaced: Rule behind white space; ``None`` where it makes free text of a tag.
        following: What goes on with the tag.
        letters: Characters that go on with it.
    """
    space = "" if spaced is None else f" | [{_TAG_SPACE}] {spaced}"
    others = f"[^<{letters}{_TAG_SPACE if space else ''}] free"
    return f'"" | "<" lt0{space}{following} | {others}'
