# SPDX-License-Identifier: Apache-2.0
"""Grammar of calls as text, for llguidance and for servers that run it, such as vLLM.

Outside a call everything is allowed. From the tag that begins a call on, only what the parser reads without
an issue: the name of a module, instructions that are not empty, regions with corners in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from vitron.protocol.lexer import MAX_SPACES
from vitron.protocol.modules import MODULES, ModuleRegistry

__all__ = ["Start", "call_grammar"]

Start = Literal["message", "module", "instruction", "further instruction", "region", "signals"]

MAX_FRAME_DIGITS = 5
MAX_POINTS = 64
MAX_STROKES = 16

# regular expressions; Python calls four more characters white space than \s
_SAID = r"[^<:\s\x1c-\x1f]"
_TERMINALS = rf"""
TEXT: /[^<]*{_SAID}[^<]*/ | /[^<]*:[^<]*:[^<]*/
LEADING_TEXT: /[^<]{{0,200}}{_SAID}[^<]{{0,200}}/
FREE_TEXT: /(?s:.*)/
STEP: /0|[1-9][0-9]{{0,2}}/
FRAME: /0|[1-9][0-9]{{0,{MAX_FRAME_DIGITS - 1}}}/
HANDLE: /[1-9][0-9]{{0,5}}/
DIGIT: /[0-9]/
"""


def call_grammar(
    modules: ModuleRegistry = MODULES,
    *,
    signals: Sequence[str] = (),
    spaced: bool = False,
    start: Start = "message",
) -> str:
    """Return the grammar in the Lark dialect of llguidance.

    Corners and frames are in order because rules carry the digits of a number to the number that must exceed
    it: parametric rules, which no other grammar format has.

    Args:
        modules: Modules that may be called.
        signals: Signal tokens behind each call, by name as ``<sig_p0>`` or by id as ``<[768]>``.
        spaced: Whether tags, numbers and punctuation may have a space before them, as tokenizers add that
            decode words with spaces between them.
        start: What the grammar describes: a whole message, or the rest of one behind the tag that opens a
            module, an instruction before its module, a further instruction of a call, or a region; or the
            signals alone.

    Example:
        >>> "image_segmentation" in call_grammar()
        True
    """
    gap = '" "?' if spaced else ""
    names = sorted({name for each in modules.spellings() for name in _spellings(each, spaced)})
    # without signals nothing marks the end of a call: what may continue it is read apart, but for a server
    has_end = bool(signals) or start == "message"
    blocks, region = ("(GAP? instruction)+", "(GAP? region)?") if has_end else ("GAP? instruction", "")
    starts: dict[Start, str] = {
        "message": "(message_module from_module | message_instruction from_instruction)* FREE_TEXT",
        "module": "from_module",
        "instruction": "from_instruction",
        "further instruction": f"TEXT {_tag('/instruction', gap)}",
        "region": f"region_body {gap} {_tag('/region', gap)}",
        "signals": "signals",
    }
    rules = [
        f"start: {starts[start]}",
        f"message_module[lazy]: FREE_TEXT /{_opening('module')}/",
        f"message_instruction[lazy]: FREE_TEXT /{_opening('instruction')}/",
        f"from_module: named {blocks} {region} signals",
        f"from_instruction: LEADING_TEXT {_tag('/instruction', gap)} (GAP? leading)* GAP? "
        f"{_tag('module', gap)} named {region} signals",
        f"leading: {_tag('instruction', gap)} LEADING_TEXT {_tag('/instruction', gap)}",
        f"named: {gap} ({' | '.join(names)}) {gap} {_tag('/module', gap)}",
        f"instruction: {_tag('instruction', gap)} TEXT {_tag('/instruction', gap)}",
        f"region: {_tag('region', gap)} region_body {gap} {_tag('/region', gap)}",
        f"signals: {' '.join(signals)}",
        *_region_rules(gap),
    ]
    # special tokens and the words behind them may both bring a space
    rules.append(f"GAP: /[ \\n]{{1,{2 if spaced else 1}}}/")
    # how a tokenizer that adds spaces splits a forced text is not known
    options = '%llguidance {"no_forcing": true}\n' if spaced else ""
    return options + "\n".join(rules) + _TERMINALS


def _tag(name: str, gap: str) -> str:
    pieces = ["<", *(["/"] if name[0] == "/" else []), name.lstrip("/"), ">"]
    return f" {gap} ".join(f'"{piece}"' for piece in pieces) if gap else f'"<{name}>"'


def _opening(name: str) -> str:
    """Return the regular expression of an opening tag as the lexer reads it."""
    white = rf"[ \t\r\n]{{0,{MAX_SPACES}}}"
    return f"<{white}{''.join(f'[{char}{char.upper()}]' for char in name)}{white}>"


def _spellings(name: str, spaced: bool) -> list[str]:
    if not spaced:
        return [f'"{name}"']
    # a vocabulary may lack capitals, and separate words from underscores
    words = ' " "? "_" " "? '.join(f'"{word}"' for word in name.split("_"))
    return [words, words.lower()]


def _region_rules(gap: str) -> Iterator[str]:
    """Yield the rules of what region tags enclose."""
    step = f'STEP "," " "? STEP {gap} "]"'
    pairs = f"pair{{1,{MAX_POINTS}}}"
    yield f"""region_body: {gap} ("[" {gap} left::0 | ("mask" | "region") {gap} "_" {gap} HANDLE span
  | "points" minus{{0,{MAX_POINTS // 4}}} pair (pair | minus){{0,{MAX_POINTS // 2}}} span
  | "polygon" pair{{3,{MAX_POINTS}}} span
  | "scribble" {pairs} ({gap} ";" {pairs}){{0,{MAX_STROKES - 1}}} span
  | frames)"""
    yield f'pair: " " "[" {gap} {step}'
    yield f'minus: " " "-" {gap} "[" {gap} {step}'
    yield from _kept_number("left", 3, 0, '"," " "? top::_')
    yield from _kept_number("top", 3, 12, '"," " "? right::_')
    yield from _larger_number("right", 3, 0, '"," " "? bottom::_')
    yield from _larger_number("bottom", 3, 12, f'{gap} "]" span')
    yield 'span: (" " "@" " "? FRAME)? (" " frames)?'
    yield 'frames: "|" " "? first::0'
    yield from _kept_number("first", MAX_FRAME_DIGITS, 0, '"," " "? last::_', any_value=True)
    yield from _larger_number("last", MAX_FRAME_DIGITS, 0, "", or_equal=True)


def _kept_number(name: str, digits: int, bit: int, then: str, *, any_value: bool = False) -> Iterator[str]:
    """Yield rules that read a number and keep its digits in the parameter, four bits each.

    Args:
        name: Name of the rule.
        digits: Largest number of digits.
        bit: First bit of the last digit.
        then: What follows.
        any_value: Whether the largest number is allowed, which none exceeds.
    """
    yield f"{name}::_ : " + " | ".join(f"{name}_lead{place}::_" for place in range(digits))
    for place in range(digits):
        follow = f"{name}_end" if place == 0 else f"{name}_rest{place - 1}"
        for form in ("lead", "rest"):
            choices = list[str]()
            # without leading zeros
            for digit in range(int(form == "lead" and place > 0), 10):
                keep = f"bit_or({digit << (bit + 4 * place)})" if digit else "_"
                is_largest = place == 0 and digit == 9 and not any_value
                nines = f" %if ne([{bit + 4}:{bit + 4 * digits}], {_nines(digits - 1)})" if is_largest else ""
                choices.append(f'"{digit}" {follow}::{keep}{nines}')
            yield f"{name}_{form}{place}::_ : " + " | ".join(choices)
    yield f"{name}_end::_ : {then}"


def _larger_number(name: str, digits: int, bit: int, then: str, *, or_equal: bool = False) -> Iterator[str]:
    """Yield rules that read a number larger than the one kept at a bit; see :func:`_kept_number`."""
    passed = "::_" if "::_" in then else ""
    yield f"{name}::_ : " + " | ".join(f"{name}_lead{place}::_" for place in range(digits))
    for place in range(digits):
        first = bit + 4 * place
        # once a digit is larger, the others are free
        free = f"{name}_free{place - 1}{passed}" if place else f"{name}_end{passed}"
        equal = f"{name}_equal{place - 1}::_" if place else f"{name}_end{passed}" if or_equal else ""
        # while all are equal, the rest must still be able to be larger
        can_grow = [] if or_equal or not place else [f"lt([{bit}:{first}], {_nines(place)})"]
        for form in ("lead", "equal"):
            is_short = form == "lead" and place < digits - 1
            shorter = [f"eq([{first + 4}:{bit + 4 * digits}], 0)"] if is_short else []
            choices = list[str]()
            for digit in range(int(form == "lead" and place > 0), 10):
                if digit:
                    larger = [*shorter, f"lt([{first}:{first + 4}], {digit})"]
                    choices.append(f'"{digit}" {free} %if {_all(larger)}')
                if equal:
                    same = [*shorter, f"eq([{first}:{first + 4}], {digit})", *can_grow]
                    choices.append(f'"{digit}" {equal} %if {_all(same)}')
            yield f"{name}_{form}{place}::_ : " + " | ".join(choices)
        yield f"{name}_free{place}{passed} : DIGIT {free}"
    yield f"{name}_end{passed} : {then}"


def _all(conditions: Sequence[str]) -> str:
    first, *others = conditions
    return f"and({first}, {_all(others)})" if others else first


def _nines(digits: int) -> int:
    return int("9" * digits, 16)
