# SPDX-License-Identifier: Apache-2.0
"""The decoder: forced tokens, incomplete characters, end tokens, and where the context ends."""

import re
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from vitron.errors import ContextLengthError
from vitron.model.constraints import CallGrammar, CallState
from vitron.model.engine import Vitron
from vitron.model.generation import Decoder
from vitron.protocol import StreamParser
from vitron.protocol.sampling import SamplingParams

from .conftest import ask, make_image, segment
from .vocabularies import KINDS, TEXTS, make_encoder


def follow(monkeypatch, ids):
    """Let every decoder sample these tokens, then the end; return the tokens of each pass."""
    passes, sample = [], Decoder.sample

    def logged(decoder, logits):
        tokens = sample(decoder, logits)
        passes.append(tokens)
        return tokens

    monkeypatch.setattr(Decoder, "sample", logged)
    monkeypatch.setattr("vitron.model.generation._sample", lambda *_: ids[sum(map(len, passes))])
    return passes


def stream(vitron, example, **settings):
    return list(vitron.stream(example.messages[:1], example.media, (), SamplingParams(**settings)))


def test_what_the_grammar_leaves_no_choice_about_is_read_in_one_pass(vitron, monkeypatch):
    """The message, its text and its signals are those of a pass for each token."""
    example = ask(make_image(0), reply=("ok", (segment(),)))
    text = vitron.encoder.assistant_text(example.messages[1])
    ids = [*vitron.encoder.tokenize(text), vitron.encoder.end_id]
    passes = follow(monkeypatch, ids)
    pieces, together = stream(vitron, example, max_new_tokens=200), list(passes)
    passes.clear()
    monkeypatch.setattr(CallState, "advance_forced", lambda *_: [])
    wanted, alone = stream(vitron, example, max_new_tokens=200), list(passes)
    assert [*chain(*together)] == [*chain(*alone)] == ids[:-1]
    assert all(len(tokens) == 1 for tokens in alone[:-1])
    assert len(together) <= len(alone) - len(vitron.grammar.signals) + 1
    assert "".join(piece.text for piece in pieces) == "".join(piece.text for piece in wanted) == text
    (found,) = [piece.signal for piece in pieces if piece.signal is not None]
    (signal,) = [piece.signal for piece in wanted if piece.signal is not None]
    np.testing.assert_allclose(found, signal, rtol=1e-4, atol=1e-4)
    assert sum(piece.tokens for piece in pieces) == len(ids) - 1


def test_forced_tokens_end_where_the_message_must(vitron):
    example = ask(make_image(0), reply=("ok", (segment(),)))
    ids = vitron.encoder.tokenize(vitron.encoder.assistant_text(example.messages[1]))
    signals = vitron.grammar.signals
    state = CallState(vitron.grammar)
    for token in ids[: ids.index(signals[0]) + 1]:
        state.advance(token)
    assert state.advance_forced(3) == signals[1:4]
    assert state.advance_forced(100) == signals[4:]
    assert state.advance_forced(100) == []
    assert not state.in_call


def test_an_incomplete_character_is_held_back_and_counted(vitron, monkeypatch):
    ids = vitron.encoder.tokenize("a\U0001f600b")
    cut = [*ids[:-2], vitron.encoder.end_id]
    passes = follow(monkeypatch, [*ids, vitron.encoder.end_id])
    pieces = stream(vitron, ask(), max_new_tokens=20, constrained=False)
    assert [piece.text for piece in pieces] == ["a", "\U0001f600", "b"]
    assert [piece.tokens for piece in pieces] == [1, len(ids) - 2, 1]
    passes.clear()
    monkeypatch.setattr("vitron.model.generation._sample", lambda *_: cut[sum(map(len, passes))])
    pieces = stream(vitron, ask(), max_new_tokens=20, constrained=False)
    assert pieces[-1].text.startswith("\ufffd")
    assert sum(piece.tokens for piece in pieces) == len(cut) - 1


def read(encoder, ids):
    """The text of tokens that arrive one by one."""
    grammar = CallGrammar(encoder, len(encoder.tokenizer))
    decoder = Decoder(encoder, grammar, SamplingParams(constrained=False), lambda _: None)
    pieces = [decoder.append(token, torch.zeros(1)) for token in ids] + [decoder.close()]
    return "".join(piece.text for piece in pieces if piece is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_long_text_is_decoded_piece_by_piece_as_at_once(kind):
    """Characters of several bytes, tags and the spaces between words are those of one decoding."""
    encoder, counts = make_encoder(kind), []
    text = " ".join([*TEXTS, "\U0001f600\U0001f601日本語äöü  ,  .  x" * 3])
    ids, decode = encoder.tokenize(text * 8), encoder.decode
    encoder.decode = lambda each: counts.append(len(each)) or decode(each)
    assert read(encoder, ids) == decode(ids)
    assert len(ids) > 1000
    assert sum(counts) < 60 * len(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_any_tokens_are_decoded_piece_by_piece_as_with_all_before_them(kind, monkeypatch):
    """Where tokens are no characters too, but for the number of replacements that a decoder writes."""
    encoder = make_encoder(kind)
    size = len(encoder.tokenizer)
    ids = torch.randint(4, size, (1500,), generator=torch.Generator().manual_seed(3)).tolist()
    found = read(encoder, ids)
    monkeypatch.setattr("vitron.model.generation._MOST_AGAIN", len(ids) + 1)
    assert re.sub("\ufffd+", "\ufffd", found) == re.sub("\ufffd+", "\ufffd", read(encoder, ids))


def test_every_end_token_of_the_generation_configuration_ends_a_message(vitron, monkeypatch):
    other = vitron.encoder.tokenize("!")[0]
    monkeypatch.setattr(vitron.model.generation_config, "eos_token_id", [vitron.encoder.end_id, other])
    again = Vitron(vitron.model, vitron.processor)
    assert again.grammar.end_ids == {vitron.encoder.end_id, other}
    follow(monkeypatch, [*vitron.encoder.tokenize("a"), other])
    assert [piece.text for piece in stream(again, ask())] == ["a"]


def test_a_message_cut_within_a_call_is_an_issue(vitron, monkeypatch):
    ids = vitron.encoder.tokenize("ok <module>B</module> <instruction>segment: it")
    follow(monkeypatch, [*ids, *ids])
    pieces = stream(vitron, ask(), max_new_tokens=len(ids))
    parser = StreamParser()
    for piece in pieces:
        parser.feed(piece.text)
    assert [issue.code for issue in parser.close().issues] == ["unclosed_tag"]


def test_a_conversation_longer_than_the_context_is_refused_before_the_model_runs(vitron, monkeypatch):
    example = ask(text="so " * 4000, reply=None)
    count = vitron.count_tokens(example.messages, ())
    monkeypatch.setattr(vitron.model, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(
        ContextLengthError, match=f"{count} tokens, and the context .* {vitron.context_length}"
    ):
        stream(vitron, example)
    with pytest.raises(ContextLengthError, match=f"{count} tokens"):
        vitron.generate_batch([example])


def test_a_message_ends_where_the_context_does(vitron, monkeypatch):
    example = ask(make_image(0), reply=None)
    count = vitron.count_tokens(example.messages, example.media)
    monkeypatch.setattr(Vitron, "context_length", count + 7)
    monkeypatch.setattr("vitron.model.generation._sample", lambda *_: vitron.encoder.tokenize("a")[0])
    assert sum(piece.tokens for piece in stream(vitron, example, max_new_tokens=100)) == 7
    assert vitron.generate_batch([example, example], max_new_tokens=100) == ["a" * 7] * 2
    assert vitron.generate_batch([example], max_new_tokens=3) == ["a" * 3]


def test_sampling_follows_temperature_and_top_p(vitron):
    first, second, third = vitron.encoder.tokenize("abc")
    logits = torch.full((vitron.grammar.size,), -90.0)
    logits[[first, second, third]] = torch.tensor([5.0, 4.0, 3.0])

    def drawn(**settings):
        sampling = SamplingParams(constrained=False, **settings)
        return {vitron.decoder(replace(sampling, seed=seed)).sample(logits)[0] for seed in range(40)}

    assert drawn() == {first}
    assert drawn(temperature=1.0, top_p=0.6) == {first}
    assert drawn(temperature=1.0, top_p=0.9) == {first, second}
    assert drawn(temperature=3.0) == {first, second, third}
