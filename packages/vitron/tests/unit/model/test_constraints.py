# SPDX-License-Identifier: Apache-2.0
"""Whatever an untrained model would say with any tokenizer, its calls have no issue (checks 6, 7)."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from vitron.model.constraints import CallGrammar, CallLogitsProcessor, CallState
from vitron.protocol import call_grammar, parse

from .vocabularies import KINDS, NAMES, SIGNALS, make_encoder

OPENINGS = ("Sure. <module>", "<instruction>", "< MODULE >", "ok <b> <mod", "")
MOST = 120  # tokens of a message
SAMPLES = 130  # of each of the four forms of a tokenizer: 520 a kind


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["special tags", "spelled tags"])
def tags(request):
    return request.param


@pytest.fixture(scope="module", params=[SIGNALS, ()], ids=["signals", "no signals"])
def encoder(request, kind, tags):
    return make_encoder(kind, special_tags=tags, signals=request.param)


@pytest.fixture(scope="module")
def grammar(encoder):
    # padded, as embeddings often are
    return CallGrammar(encoder, len(encoder.tokenizer) + 5)


def babble(grammar, encoder, generator, opening):
    """Sample from random logits, in which tokens that may close a tag are likelier, as calls end so rarely.

    Returns:
        The tokens, and whether the message ended.
    """
    texts = grammar.tokens.texts
    closing = [number for number, text in enumerate(texts) if text.lstrip()[:1] == b"<" or text[-1:] == b">"]
    scores = 3 * torch.randn((MOST, grammar.size), generator=generator)
    scores[:, closing] += 6 * torch.rand((MOST, 1), generator=generator)
    scores[:, len(encoder.tokenizer) :] = float("-inf")
    scores[:, encoder.end_id] = torch.linspace(2, 16, MOST)
    state, written = CallState(grammar), list(opening)
    for token in opening:
        state.advance(token)
    for row in scores:
        token = int(state.constrain(row).argmax())
        if token == encoder.end_id:
            assert not state.in_call
            return written, True
        state.advance(token)
        written += [token, *state.advance_forced(8)]
    return written, not state.in_call


def test_random_logits_make_no_call_with_an_issue(encoder, grammar):
    finished, calls = 0, 0
    for seed in range(SAMPLES):
        opening = encoder.tokenize(OPENINGS[seed % len(OPENINGS)])
        written, ended = babble(grammar, encoder, torch.Generator().manual_seed(seed), opening)
        if not ended:
            continue
        text = encoder.decode(written)
        turn = parse(text)
        # calls are constrained; text may still spell half a tag on each side of another one, which is no call
        assert {issue.code for issue in turn.issues} <= {"broken_tag"}, (text, turn.issues)
        assert len(turn.signals) >= len(grammar.signals) * len(turn.invocations)
        finished += 1
        calls += len(turn.invocations)
    assert finished > SAMPLES // 2
    assert calls > SAMPLES // 4


def test_a_token_tried_first_is_that_of_the_mask(encoder, grammar):
    """A token that is not allowed leaves everything as it is, and one that is allowed needs no mask."""
    texts = grammar.tokens.texts
    closing = [number for number, text in enumerate(texts) if text.lstrip()[:1] == b"<" or text[-1:] == b">"]
    tried = {True: 0, False: 0}
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        ahead, behind = CallState(grammar), CallState(grammar)
        for token in encoder.tokenize(OPENINGS[seed % len(OPENINGS)]):
            ahead.advance(token)
            behind.advance(token)
        # half of the tokens continue a message; the others are random, and mostly not allowed
        message = encoder.tokenize("B</module> <instruction>segment: a red star</instruction> ok < b")
        for planned in message:
            logits = torch.randn(grammar.size, generator=generator)
            logits[closing] += 2
            logits[planned] += 8 * (torch.rand((), generator=generator) < 0.8)
            held = behind.constrain(logits)
            wanted, token = int(held.argmax()), int(logits.argmax())
            is_allowed = ahead.try_advance(token)
            assert is_allowed == (not torch.isneginf(held[token]))
            tried[is_allowed] += 1
            if not is_allowed:
                assert torch.equal(ahead.constrain(logits), held)
                token = int(ahead.constrain(logits).argmax())
                assert ahead.try_advance(token)
            assert token == wanted
            if token in grammar.end_ids:
                assert torch.equal(ahead.constrain(logits), held)
                break
            behind.advance(token)
            assert (ahead.in_call, ahead.held) == (behind.in_call, behind.held)
    assert min(tried.values()) > 20


def test_free_text_passes_unchanged(encoder, grammar):
    state = CallState(grammar)
    logits = torch.randn(grammar.size, generator=torch.Generator().manual_seed(0))
    for token in encoder.tokenize("a red star & 3 > 2, so: fine. < b"):
        assert state.constrain(logits) is logits
        assert state.allowed() is None
        state.advance(token)
    for token in encoder.tokenize(" <module>"):
        state.advance(token)
    held = state.constrain(logits)
    kept = ~torch.isneginf(held)
    assert 0 < kept.sum() < grammar.size / 2
    assert torch.equal(held[kept], logits[kept])


def test_the_canonical_tokens_of_a_call_are_allowed(encoder, grammar):
    state = CallState(grammar)
    text = (
        "ok. <module>image_editing</module> <instruction>remove: the \u65e5 \U0001f600</instruction> "
        "<region>[1, 20, 300, 999]</region>"
    )
    for token in encoder.tokenize(text):
        allowed = state.allowed()
        assert allowed is None or allowed[token], (grammar.tokens.texts[token], state.held)
        assert allowed is None or not allowed[encoder.end_id]
        state.advance(token)
    assert state.in_call == bool(grammar.signals)
    assert state.advance_forced(9) == grammar.signals


def test_texts_of_tokens_make_up_the_message(encoder, grammar):
    message = (
        "Sure, \u65e5\u672c. <module>B</module> <instruction>segment: \U0001f600 x > y</instruction> \u00e4"
    )
    ids = encoder.tokenize(message)
    joined = b"".join(grammar.tokens.texts[each] for each in ids).decode()
    assert joined.removeprefix(" ") == encoder.decode(ids).removeprefix(" ")


@pytest.fixture(scope="module")
def plain():
    """A byte-level tokenizer, whose tags are spelled: tokens as ">B" end a tag and go on."""
    encoder = make_encoder("bytes", special_tags=False)
    return encoder, CallGrammar(encoder, len(encoder.tokenizer))


def spelled(grammar, text):
    return [grammar.tokens.texts.index(text[place : place + 1].encode()) for place in range(len(text))]


def test_a_token_that_opens_a_call_and_goes_on_follows_the_grammar(plain):
    _, grammar = plain
    crossing = grammar.tokens.texts.index(b">B")
    other = next(
        number for number, text in enumerate(grammar.tokens.texts) if text[:1] == b">" and text[1:2] == b"s"
    )
    state = CallState(grammar)
    logits = torch.zeros(grammar.size)
    for token in spelled(grammar, "a <module"):
        state.advance(token)
    held = state.constrain(logits)
    assert held[crossing] == 0
    assert torch.isneginf(held[other])
    with pytest.raises(ValueError, match=f"does not allow token {other}"):
        state.advance(other)
    state = CallState(grammar)
    for token in [*spelled(grammar, "a <module"), crossing]:
        state.advance(token)
    assert state.in_call
    state = CallState(grammar)
    for token in spelled(grammar, "a <b"):
        state.advance(token)
    assert state.constrain(logits) is logits


def test_a_started_set_of_signals_is_completed(plain):
    _, grammar = plain
    state = CallState(grammar)
    state.advance(grammar.signals[1])
    assert state.advance_forced(9) == grammar.signals[2:]
    assert not state.in_call


def test_rows_of_a_batch_are_held_apart(plain):
    encoder, grammar = plain
    rows = [encoder.tokenize(text) for text in ("hello there", "ok<module>res")]
    holder, prompt = CallLogitsProcessor(grammar, 3), 3
    states = [CallState(grammar), CallState(grammar)]
    logits = torch.randn(2, grammar.size, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(2, prompt, dtype=torch.long)
    for place in range(max(map(len, rows))):
        found = holder(ids, logits)
        for row, state in enumerate(states):
            assert torch.equal(found[row], state.constrain(logits[row]))
        step = [row[place] if place < len(row) else encoder.end_id for row in rows]
        for row, state in enumerate(states):
            if step[row] != encoder.end_id:
                state.advance(step[row])
        ids = torch.cat([ids, torch.tensor(step)[:, None]], 1)


def test_threads_share_a_grammar(plain):
    encoder, _ = plain
    grammar = CallGrammar(encoder, len(encoder.tokenizer))

    def one(seed):
        return babble(grammar, encoder, torch.Generator().manual_seed(seed), encoder.tokenize("<module>"))

    wanted = [one(seed) for seed in range(4)]
    grammar = CallGrammar(encoder, len(encoder.tokenizer))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == wanted


def test_a_tokenizer_without_brackets_is_refused(plain):
    encoder, _ = plain
    words = Tokenizer(models.WordLevel({"<unk>": 0, "red": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    small = SimpleNamespace(**(vars(encoder) | {"tokenizer": tokenizer, "signals": (), "end_id": 2}))
    grammar = CallGrammar(small, 3)
    with pytest.raises(ValueError, match="cannot be constrained: the tokenizer has no token for"):
        grammar.matcher("module")


@pytest.mark.parametrize("tags", [True, False])
def test_a_server_reads_the_grammar_with_the_tokenizer_of_the_model(tags):
    """As vLLM does, by the adapter of llguidance; tags are special tokens of attached models."""
    encoder = make_encoder("bytes", special_tags=tags)
    grammar = call_grammar(signals=NAMES, special_tags=tags)
    matcher = LLMatcher(from_tokenizer(encoder.tokenizer), grammar, log_level=0)
    assert not matcher.get_error()
    call = "<module>B</module> <instruction>segment: it</instruction>"
    ids = encoder.tokenize(f"a < b {call}{''.join(NAMES)} and {call} <region>[1, 2, 3, 4]")
    assert matcher.try_consume_tokens(ids) == len(ids)
    allowed = [number for number, one in enumerate(matcher.compute_logit_bias()) if one]
    assert encoder.end_id not in allowed
    assert encoder.tokenize("<module>")[0] not in allowed
