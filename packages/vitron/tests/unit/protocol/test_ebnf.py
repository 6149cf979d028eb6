# SPDX-License-Identifier: Apache-2.0
"""The grammar in EBNF, as xgrammar reads it byte by byte, and the command that writes both forms."""

import random
from importlib import resources

import pytest
import torch
import xgrammar
from common_kernels.runtime.cli import run_app
from llguidance import LLMatcher, LLTokenizer
from vitron.cli import app
from vitron.protocol import call_ebnf, parse
from vitron.protocol.contract import BoxRegion, Instruction, Invocation, PointsRegion, ReferenceRegion
from vitron.protocol.render import render_invocation

SIGNALS = ("<sig_p0>", "<sig_s0>")
CALL = "<module>B</module><instruction>segment: the dog</instruction>"
# texts that a whole message may begin with, and texts that it may not
GOOD = [
    "a < b <mod <module",
    "Sure. " + CALL,
    f"ok {CALL}<region>[1, 2, 3, 4] @ 7 | 1, 2</region> and {CALL}\n<region>mask_12</region> done",
    "< MODULE >",
    "<Module>image_editing</module> <instruction>::</instruction>\n<instruction>x</instruction>",
    "<instruction>remove: it</instruction><module>C</module> after",
    f"{CALL}<region>points [1, 2] -[3, 4] [5, 6]</region>",
    f"{CALL}<region>scribble [1, 2] [3, 4]; [5, 6]</region>",
]
BAD = [
    "<module>Z",
    "ok < MODULE >image_x",
    "<module>B</module><region>",
    "<module>B</module><instruction> : </",
    "<module>B</module><instruction>\u00a0</",
    f"{CALL}<region>[01",
    f"{CALL}<region>[1000",
    f"{CALL}<region>[1, 2, 3]",
    f"{CALL}<region>mask_0",
    f"{CALL}<region>polygon [1, 2] [3, 4]<",
    f"{CALL}<region>points -[1, 2]<",
    "<instruction>x</instruction><region>",
]


def tokenizer():
    """Bytes as tokens, with tags and signals as tokens of their own, as in attached models."""
    tokens = [bytes([number]) for number in range(256)]
    extra = [b"<module>", b"</module>", b"<instruction>", *(each.encode() for each in SIGNALS), b"</s>"]
    return xgrammar.TokenizerInfo(
        tokens + extra, vocab_size=len(tokens + extra), stop_token_ids=[len(tokens + extra) - 1]
    )


def compiled(**settings):
    return xgrammar.GrammarCompiler(tokenizer()).compile_grammar(
        xgrammar.Grammar.from_ebnf(call_ebnf(**settings))
    )


@pytest.fixture(scope="module")
def grammar():
    return compiled()


def allows(grammar, text):
    return xgrammar.GrammarMatcher(grammar).accept_string(text)


@pytest.mark.parametrize("text", GOOD)
def test_xgrammar_takes_calls_as_they_are_written(grammar, text):
    assert allows(grammar, text)


@pytest.mark.parametrize("text", BAD)
def test_xgrammar_refuses_what_would_be_an_issue(grammar, text):
    assert not allows(grammar, text)


def test_what_the_writer_writes_is_allowed_with_and_without_signals(grammar):
    box = BoxRegion(x0=0.1, y0=0.2, x1=0.3, y1=0.9)
    points = PointsRegion(points=[(0.1, 0.2), (0.5, 0.5)], positive=[True, False])
    for region in (box, points, ReferenceRegion(name="mask_3"), None):
        call = Invocation(
            module="video_segmentation",
            instruction=(Instruction(verb="track", text="a <b> ü"), Instruction(text="10:45")),
            region=region,
            frames=(3, 99_999),
        )
        written = render_invocation(call)
        assert allows(grammar, f"Here: {written} bye"), written
        signalled = compiled(signals=SIGNALS)
        assert allows(signalled, f"Here: {written}{''.join(SIGNALS)} bye"), written
        assert not allows(signalled, f"Here: {written} bye"), written


@pytest.mark.parametrize("spaced", [False, True])
def test_every_message_under_the_grammar_is_parsed(spaced):
    """Of what a model without sense would write, the order of corners and frames alone can be wrong."""
    grammar, rng, calls = compiled(spaced=spaced), random.Random(3), 0
    mask = xgrammar.allocate_token_bitmask(1, grammar.tokenizer_info.vocab_size)
    for _ in range(15):
        matcher, text = xgrammar.GrammarMatcher(grammar), "hi <module>"
        assert matcher.accept_string(text)
        while len(text) < 250:
            matcher.fill_next_token_bitmask(mask)
            bits = (mask[0, :4, None] >> torch.arange(32)).bitwise_and(1).flatten()  # the 128 of ASCII
            allowed = [number for number in range(128) if bits[number]]
            if not allowed:
                break
            char = "<" if ord("<") in allowed and rng.random() < 0.3 else chr(rng.choice(allowed))
            assert matcher.accept_string(char)
            text += char
        found = parse(text)
        calls += len(found.invocations)
        for issue in found.issues:
            is_cut_short = issue.code == "unclosed_tag" and len(text) == 250
            assert is_cut_short or "beyond" in issue.message or "frame" in issue.message, (text, issue)
    assert calls > 10


def test_ids_are_no_text():
    with pytest.raises(ValueError, match=r"give signals by name such as <sig_p0>, got <\[768\]>"):
        call_ebnf(signals=["<[768]>"])


def test_the_command_writes_both_forms(capsys, grammar):
    assert run_app(app, ["grammar", "--form", "ebnf", "--num-signals", "0", "0"]) == 0
    written = capsys.readouterr().out
    again = xgrammar.GrammarCompiler(tokenizer()).compile_grammar(xgrammar.Grammar.from_ebnf(written))
    assert allows(again, GOOD[2])
    assert not allows(again, BAD[2])
    assert run_app(app, ["grammar"]) == 0
    words = LLTokenizer(str(resources.files("vitron") / "assets" / "vitron-tiny" / "tokenizer.json"))
    lark = LLMatcher(words, capsys.readouterr().out, log_level=0)
    assert not lark.get_error()
    signals = "".join(f"<sig_{kind}{number}>" for kind in "ps" for number in range(4))
    for text, is_good in ((f"{CALL}{signals} there", True), (f"{CALL} there", False), (BAD[0], False)):
        tokens = words.tokenize_str(text, parse_special=True)
        assert (lark.deep_copy().try_consume_tokens(tokens) == len(tokens)) == is_good, text
