# SPDX-License-Identifier: Apache-2.0
"""Messages of one batch are those written alone, whoever joins, leaves or fails beside them."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from vitron.model.assembly import attach_to
from vitron.model.batching import ContinuousBatcher, generate_messages
from vitron.model.engine import Vitron
from vitron.model.generation import Decoder
from vitron.protocol.sampling import SamplingParams

from .backbones import FAMILIES, make_backbone
from .conftest import ask, make_image, make_video, segment, square


def generate(generator, example, **settings):
    pieces = generator.stream(example.messages, example.media, example.regions, SamplingParams(**settings))
    return "".join(piece.text for piece in pieces)


def together(generator, examples, lengths, **settings):
    def one(job):
        example, length = job
        return generate(generator, example, max_new_tokens=length, **settings)

    with ThreadPoolExecutor(len(examples)) as pool:
        return list(pool.map(one, zip(examples, lengths, strict=True)))


def idle(batcher):
    deadline = time.monotonic() + 10
    while batcher._is_working and time.monotonic() < deadline:
        time.sleep(0.01)
    return not batcher._is_working


EXAMPLES = [
    ask(make_image(0), regions=(square(),), reply=None),
    ask(text="hello", reply=None),
    ask(make_video(2), reply=None),
    ask(text="a blue star, a green ring and the red circle", reply=None),
    ask(make_image(3), reply=None),
]


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("settings", [{}, {"temperature": 2.0, "seed": 3}, {"constrained": False}])
def test_messages_are_those_written_alone(vitron, rows, settings):
    lengths = [24, 3, 17, 9, 12]
    wanted = [
        generate(vitron, each, max_new_tokens=length, **settings)
        for each, length in zip(EXAMPLES, lengths, strict=True)
    ]
    batcher = ContinuousBatcher(vitron, rows=rows)
    for _ in range(2):  # after all have gone, it begins anew
        assert together(batcher, EXAMPLES, lengths, **settings) == wanted
        assert idle(batcher)


def test_signals_are_those_of_the_whole_conversation(vitron, monkeypatch):
    """Three rows are made to say messages with calls, in passes of different numbers of tokens."""
    texts = ("ok", "Here it is.", "a")
    examples = [ask(make_image(n), reply=(words, (segment(),))) for n, words in enumerate(texts)]
    scripts = []
    for example, widths in zip(examples, ([1, 3, 2], [1], [5, 1, 1, 4]), strict=True):
        text = vitron.encoder.assistant_text(example.messages[1])
        ids = vitron.encoder.tokenize(text)
        runs = []
        while ids:
            width = widths[len(runs) % len(widths)]
            runs.append(ids[:width])
            ids = ids[width:]
        scripts.append(iter(runs))
    monkeypatch.setattr(Decoder, "sample", lambda row, _logits: next(scripts[row._sampling.seed], []))
    batcher = ContinuousBatcher(vitron)

    def signal_of(number):
        example = examples[number]
        pieces = batcher.stream(example.messages[:1], example.media, (), SamplingParams(seed=number))
        return [piece.signal for piece in pieces if piece.signal is not None]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(signal_of, range(3)))
    for (signal,), example in zip(found, examples, strict=True):
        np.testing.assert_allclose(signal, vitron.signals_of([example])[0][0], rtol=1e-4, atol=1e-4)


def test_a_conversation_that_cannot_be_read_fails_alone(vitron):
    batcher = ContinuousBatcher(vitron)
    good, other = EXAMPLES[0], ask(make_image(1), reply=None)
    with ThreadPoolExecutor(2) as pool:
        reply = pool.submit(generate, batcher, good, max_new_tokens=24)
        bad = pool.submit(lambda: list(batcher.stream(other.messages, (), (), SamplingParams())))
        assert isinstance(bad.exception(), Exception)
        assert reply.result() == generate(vitron, good, max_new_tokens=24)


def test_who_leaves_does_not_disturb(vitron):
    batcher = ContinuousBatcher(vitron)
    leaving = batcher.stream(EXAMPLES[1].messages, (), (), SamplingParams(max_new_tokens=500))
    assert next(leaving).text is not None
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(generate, batcher, EXAMPLES[4], max_new_tokens=24)
        leaving.close()
        assert reply.result() == generate(vitron, EXAMPLES[4], max_new_tokens=24)
    assert idle(batcher)


def test_a_pass_that_fails_is_told_to_all_and_the_next_conversation_resumes(vitron, monkeypatch):
    batcher, example = ContinuousBatcher(vitron), EXAMPLES[1]
    wanted, forward, calls = generate(vitron, example, max_new_tokens=8), vitron.model.forward, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("no memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(vitron.model, "forward", failing)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        generate(batcher, example, max_new_tokens=8)
    assert generate(batcher, example, max_new_tokens=8) == wanted


def test_a_batch_needs_a_row(vitron):
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        ContinuousBatcher(vitron, rows=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_messages_of_any_backbone_are_those_written_alone(family):
    """Some have positions in time, height and width, and one has layers that cannot be padded."""
    vitron = Vitron(*attach_to(*make_backbone(family)))
    assert (vitron.why_single is None) == (family != "gemma3")
    examples = [ask(make_image(0, 56, 40), reply=None), ask(text="hello", reply=None)]
    examples.append(ask(make_image(1, 40, 64), text="a blue star and the red circle", reply=None))
    settings = {"max_new_tokens": 8, "constrained": False}
    wanted = [generate(vitron, each, **settings) for each in examples]
    assert generate_messages(vitron, examples, SamplingParams(**settings)) == wanted
    batcher = ContinuousBatcher(vitron, rows=2)
    assert together(batcher, examples, [8, 8, 8], constrained=False) == wanted
    assert idle(batcher)


def test_a_step_has_the_positions_of_the_whole_conversation():
    """Three axes: after images the next position is not the number of tokens."""
    vitron = Vitron(*attach_to(*make_backbone("qwen2_5_vl")))
    example = ask(make_image(0, 56, 84), reply=None)
    ids = vitron.encoder.tokenize("a blue star")
    with torch.inference_mode():
        start = vitron.prefill([example])
        positions = vitron.positions(start.next_positions, [len(ids)])
        step = vitron.forward(start.cache, input_ids=torch.tensor([ids]), position_ids=positions)
        inputs = vitron.encoder([example]).inputs()
        whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
        inputs |= {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
        if "mm_token_type_ids" in inputs:
            kinds = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(1, len(ids))], 1)
        wanted = vitron.model(**inputs, use_cache=False).hidden[:, -len(ids) :]
    assert int(start.next_positions) < len(whole[0]) - len(ids)
    torch.testing.assert_close(step.hidden, wanted, rtol=1e-4, atol=1e-4)
