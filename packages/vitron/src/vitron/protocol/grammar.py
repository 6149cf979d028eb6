# SPDX-License-Identifier: Apache-2.0
"""Grammar of calls as text, for llguidance and for servers that run it, such as vLLM; see also ``ebnf``.

Outside a call everything is allowed. From the tag that begins a call on, only what the parser reads without
an issue: the name of a module, instructions that are not empty, regions with corners in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from vitron.protocol.lexer import MAX_SPACES
from vitron.protocol.modules import MODULES, ModuleRegistry

__all__ = ["MAX_FRAME_DIGITS", "Start", "call_grammar", "call_rules", "region_rules"]

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
    special_tags: bool = False,
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
        special_tags: Whether tags may be special tokens, which llguidance does not read as text.
        start: What the grammar describes: a whole message, or the rest of one behind the tag that opens a
            module, an instruction before its module, a further instruction of a call, or a region; or the
            signals alone.

    Example:
        >>> "image_segmentation" in call_grammar()
        True
    """
    gap = '" "?' if spaced else ""
    tag = partial(_tag, gap=gap, special=special_tags)
    # without signals nothing marks the end of a call: what may continue it is read apart, but for a server
    has_end = bool(signals) or start == "message"
    rules = call_rules(modules, signals, spaced=spaced, special_tags=special_tags, has_end=has_end)
    starts: dict[Start, str] = {
        "message": "(to_module from_module | to_instruction from_instruction)* FREE_TEXT",
        "module": "from_module",
        "instruction": "from_instruction",
        "further instruction": f"TEXT {tag('/instruction')}",
        "region": f"region_body {gap} {tag('/region')}",
        "signals": "signals",
    }
    lines = [
        f"start: {starts[start]}",
        *(
            f"to_{name}: spelled_{name}" + (f" | FREE_TEXT <{name}>" if special_tags else "")
            for name in ("module", "instruction")
        ),
        f"spelled_module[lazy]: FREE_TEXT /{_opening('module')}/",
        f"spelled_instruction[lazy]: FREE_TEXT /{_opening('instruction')}/",
        *(f"{name}: {body}" for name, body in rules.items()),
        *(f"{name}: {body}" for name, body in region_rules(gap, box="left::0", frames="first::0").items()),
        *_ordered_numbers(gap),
        f"GAP: /[ \\n]{{1,{2 if spaced else 1}}}/",
    ]
    # how a tokenizer that adds spaces splits a forced text is not known
    options = '%llguidance {"no_forcing": true}\n' if spaced else ""
    return options + "\n".join(lines) + _TERMINALS


def call_rules(
    modules: ModuleRegistry,
    signals: Sequence[str],
    *,
    spaced: bool,
    special_tags: bool = False,
    has_end: bool = True,
) -> dict[str, str]:
    """Return the rules of a call behind its opening tag, by name; Lark and EBNF write them alike.

    Args:
        modules: Modules that may be called.
        signals: What follows each call, as the form writes it.
        spaced: Whether there may be spaces; special tokens and the words behind them may both bring one.
        special_tags: Whether tags may be special tokens.
        has_end: Whether a call has an end that can be seen; else what may continue it is left out.
    """
    gap = '" "?' if spaced else ""
    tag = partial(_tag, gap=gap, special=special_tags)
    names = sorted({name for each in modules.spellings() for name in _spellings(each, spaced)})
    blocks, region = ("(GAP? instruction)+", "(GAP? region)?") if has_end else ("GAP? instruction", "")
    return {
        "from_module": f"named {blocks} {region} signals",
        "from_instruction": f"LEADING_TEXT {tag('/instruction')} (GAP? leading)* GAP? "
        f"{tag('module')} named {region} signals",
        "leading": f"{tag('instruction')} LEADING_TEXT {tag('/instruction')}",
        "named": f"{gap} ({' | '.join(names)}) {gap} {tag('/module')}",
        "instruction": f"{tag('instruction')} TEXT {tag('/instruction')}",
        "region": f"{tag('region')} from_region",
        "from_region": f"region_body {gap} {tag('/region')}",
        "signals": " ".join(signals),
    }


def _tag(name: str, *, gap: str, special: bool) -> str:
    pieces = ["<", *(["/"] if name[0] == "/" else []), name.lstrip("/"), ">"]
    spelled = f" {gap} ".join(f'"{piece}"' for piece in pieces) if gap else f'"<{name}>"'
    return f"(<{name}> | {spelled})" if special else spelled


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


def region_rules(gap: str, *, box: str, frames: str) -> dict[str, str]:
    """Return the rules of what region tags enclose, by name; Lark and EBNF write them alike.

    Args:
        gap: Where tokenizers add spaces, an optional space; else nothing.
        box: Rule of the corners of a box behind its opening bracket, and of what may follow the box.
        frames: Rule of first and last frame.
    """
    pairs = f"pair{{1,{MAX_POINTS}}}"
    return {
        "region_body": f"""{gap} ("[" {gap} {box} | ("mask" | "region") {gap} "_" {gap} HANDLE span
  | "points" minus{{0,{MAX_POINTS // 4}}} pair (pair | minus){{0,{MAX_POINTS // 2}}} span
  | "polygon" pair{{3,{MAX_POINTS}}} span
  | "scribble" {pairs} ({gap} ";" {pairs}){{0,{MAX_STROKES - 1}}} span
  | frames)""",
        "pair": f'" " "[" {gap} STEP "," " "? STEP {gap} "]"',
        "minus": f'" " "-" {gap} "[" {gap} STEP "," " "? STEP {gap} "]"',
        "span": '(" " "@" " "? FRAME)? (" " frames)?',
        "frames": f'"|" " "? {frames}',
    }


def _ordered_numbers(gap: str) -> Iterator[str]:
    """Yield the rules of corners and frames in order."""
    yield from _kept_number("left", 3, 0, '"," " "? top::_')
    yield from _kept_number("top", 3, 16, '"," " "? right::_')
    yield from _larger_number("right", 3, 0, '"," " "? bottom::_')
    yield from _larger_number("bottom", 3, 16, f'{gap} "]" span')
    yield from _kept_number("first", MAX_FRAME_DIGITS, 0, '"," " "? last::_', any_value=True)
    yield from _larger_number("last", MAX_FRAME_DIGITS, 0, "", or_equal=True)


def _kept_number(name: str, digits: int, bit: int, then: str, *, any_value: bool = False) -> Iterator[str]:
    """Yield rules that read a number and keep it in the parameter: four bits a digit, then its length.

    Args:
        name: Name of the rule; with a number, the rule behind so many digits.
        digits: Largest number of digits.
        bit: First bit of the first digit.
        then: What follows.
        any_value: Whether the largest number is allowed, which none exceeds.
    """
    length = bit + 4 * digits
    for place in range(digits):
        choices = [] if place == 0 else [f"{name}_end::bit_or({place << length})"]
        for digit in range(10):
            kept = digit << (bit + 4 * place)
            ends = place == digits - 1 or place == digit == 0
            if ends:
                kept |= (place + 1) << length
            follow = f"{name}_end" if ends else f"{name}_{place + 1}"
            is_largest = place == digits - 1 and digit == 9 and not any_value
            others = f" %if ne([{bit}:{length - 4}], {int('9' * (digits - 1), 16)})" if is_largest else ""
            choices.append(f'"{digit}" {follow}::{f"bit_or({kept})" if kept else "_"}{others}')
        yield f"{name}{f'_{place}' if place else ''}::_ : " + " | ".join(choices)
    yield f"{name}_end::_ : {then}"


def _larger_number(name: str, digits: int, bit: int, then: str, *, or_equal: bool = False) -> Iterator[str]:
    """Yield rules that read a number larger than the one kept at a bit; see :func:`_kept_number`.

    Behind each digit the number so far is above, level with or below the first digits of the kept one. It may
    end if it is longer, or of the same length and above.
    """
    end = f"{name}_end{'::_' if '::_' in then else ''}"
    length = f"[{bit + 4 * digits}:{bit + 4 * digits + 3}]"
    for place in range(digits):
        slot, rest = bit + 4 * place, bit + 4 * (place + 1)
        kept = f"[{slot}:{slot + 4}]"
        above, level, below = (
            end if rest == bit + 4 * digits else f"{name}_{state}{place + 1}::_"
            for state in ("above", "level", "below")
        )
        # the number can still become longer, or a later digit larger
        can_grow = f"lt({length}, {digits})"
        nines = int("9" * (digits - 1 - place) or "0", 16)
        can_exceed = f"or({can_grow}, ne([{rest}:{bit + 4 * digits}], {nines}))" if nines else can_grow
        choices = list[str]()
        for digit in range(int(place == 0), 10):
            larger, same, smaller = (f"{test}({kept}, {digit})" for test in ("lt", "eq", "gt"))
            same = same if or_equal else f"and({same}, {can_exceed})"
            choices += [
                f'"{digit}" {above} %if or(le({length}, {place}), {larger})',
                f'"{digit}" {level} %if and(gt({length}, {place}), {same})',
                f'"{digit}" {below} %if and(gt({length}, {place}), and({smaller}, {can_grow}))',
            ]
        if place == 0 and or_equal:
            choices.append(f'"0" {end} %if and(eq({length}, 1), eq({kept}, 0))')
        if place:
            choices.append(f"{end} %if {'le' if or_equal else 'lt'}({length}, {place})")
            yield f"{name}_above{place}::_ : {end} %if le({length}, {place}) | DIGIT {above}"
            yield f"{name}_below{place}::_ : {end} %if lt({length}, {place}) | DIGIT {below}"
        yield f"{name}{f'_level{place}' if place else ''}::_ : " + " | ".join(choices)
    yield f"{end} : {then}"
