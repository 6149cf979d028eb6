# SPDX-License-Identifier: Apache-2.0
"""Whatever an untrained model would say, its calls can be read (checks 6 and 7)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vitron.model.constraints import CallLogitsProcessor, CallState, Vocabulary
from vitron.protocol import Grammar, parse

OPENING = "Sure. <module>"


@pytest.fixture(scope="module")
def vocabulary(encoder, tokenizer):
    return Vocabulary(encoder, len(tokenizer))


def ids_of(encoder, text):
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def babble(state, rng, opening, *, most=400):
    """Write as a model without sense would: any token that may come, the end where nothing is open."""
    written = list(opening)
    for token in opening:
        state.advance(token)
    vocabulary = state.vocabulary
    for step in range(most):
        mask = state.allowed()
        free = mask is None or bool(mask[vocabulary.end_id])
        if free and (step > most // 2 or rng.random() < 0.2):
            return written, True
        choices = vocabulary.spoken if mask is None else mask.nonzero()[:, 0].tolist()
        # brackets are rare among tokens, and a call that never closes says nothing of what is allowed
        closing = [each for each in choices if vocabulary.texts[each].startswith("</")]
        token = int(rng.choice(closing if closing and rng.random() < 0.3 else choices))
        written.append(token)
        state.advance(token)
    return written, False


def test_an_untrained_model_makes_no_call_that_cannot_be_read(encoder, vocabulary):
    opening = ids_of(encoder, OPENING)
    finished = 0
    for seed in range(500):
        written, ended = babble(CallState(vocabulary), np.random.default_rng(seed), opening)
        text = encoder.decode(written)
        assert Grammar().accepts(text)
        turn = parse(text)
        if ended:
            finished += 1
            assert not turn.issues, text
            assert len(turn.invocations) >= 1
            assert len(turn.signals) >= 8
    assert finished > 450


def test_logits_pass_unchanged_outside_calls(encoder, vocabulary):
    state = CallState(vocabulary)
    logits = torch.randn(len(vocabulary.texts), generator=torch.Generator().manual_seed(0))
    for token in ids_of(encoder, "A red star & 3 > 2, so: fine."):
        assert state.constrain(logits) is logits
        state.advance(token)
    state.advance(encoder.token_id("<module>"))
    held = state.constrain(logits)
    assert torch.isneginf(held).any()
    kept = ~torch.isneginf(held)
    assert torch.equal(held[kept], logits[kept])


def test_a_call_ends_with_all_its_signals(encoder, vocabulary):
    state = CallState(vocabulary)
    for token in ids_of(encoder, "<module>B</module> <instruction>segment: it</instruction>"):
        state.advance(token)
    allowed = {vocabulary.texts[each].strip() for each in state.allowed().nonzero()[:, 0].tolist()}
    assert allowed <= {"", "<instruction>", "<region>", "<sig_p0>"}
    assert "<sig_p0>" in allowed
    for signal in vocabulary.signals:
        assert state.allowed()[signal]
        state.advance(signal)
    assert state.allowed() is None


def test_rows_of_a_batch_are_held_apart(encoder, vocabulary):
    rows = [ids_of(encoder, text) for text in ("hello there", "ok<module>res")]
    prompt = 3
    length = max(len(row) for row in rows)
    holder = CallLogitsProcessor(vocabulary, prompt)
    states = [CallState(vocabulary), CallState(vocabulary)]
    logits = torch.randn(2, len(vocabulary.texts), generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(2, prompt, dtype=torch.long)
    for place in range(length):
        found = holder(ids, logits)
        for row, state in enumerate(states):
            assert torch.equal(found[row], state.constrain(logits[row]))
        step = [row[place] if place < len(row) else encoder.end_id for row in rows]
        for row, state in enumerate(states):
            state.advance(step[row])
        ids = torch.cat([ids, torch.tensor(step)[:, None]], 1)


def test_what_may_come_is_what_the_grammar_takes_token_by_token():
    """Tokens cut calls anywhere, within tags and across their ends; none is passed over."""
    call = (
        "<module>image_editing</module> <instruction>remove: the dog</instruction>"
        "<instruction> : x</instruction><region>[1, 2, 30, 400]</region>"
    )
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(call) - 1, 400)
    cut = {
        call[start : start + length] for start, length in zip(starts, rng.integers(1, 24, 400), strict=True)
    }
    texts = ["", "", *sorted(cut | {*call, "B</module>", "B</module><instruction>a", "video_"})]
    made = SimpleNamespace(
        token_text=texts.__getitem__, token_id=texts.index, end_id=0, pad_id=1, signals=(), texts=texts
    )
    vocabulary = Vocabulary(made, len(texts))
    looked = 0
    ends = [*range(len("<module>"), len(call))]
    for end in ends * 2:  # the second time from memory
        state = CallState(vocabulary)
        state.grammar.advance(call[:end])
        if not state.grammar.in_call:
            continue
        wanted = [bool(text) and state.grammar.accepts(text) for text in texts]
        assert state.allowed().tolist() == wanted, call[:end]
        looked += 1
    assert looked > 160
