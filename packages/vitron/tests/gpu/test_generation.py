# SPDX-License-Identifier: Apache-2.0
"""The shipped model on each device, in each precision, against single precision on the CPU."""

import gc

import pytest
import torch
from vitron.model.engine import Vitron
from vitron.protocol.messages import Message, TextPart
from vitron.protocol.sampling import SamplingParams

REQUEST = (Message(role="user", content=(TextPart(text="draw a red star at the left"),)),)


def generate(vitron):
    pieces = list(vitron.stream(REQUEST, (), (), SamplingParams(temperature=0.0, max_new_tokens=80)))
    signals = [torch.as_tensor(piece.signal) for piece in pieces if piece.signal is not None]
    return "".join(piece.text for piece in pieces), signals


@pytest.fixture(scope="module")
def yardstick():
    return generate(Vitron.from_pretrained("vitron-tiny", device="cpu", dtype="float32"))


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-3), ("float16", 0.02), ("bfloat16", 0.1)])
def test_each_precision_calls_the_same_specialist_with_the_same_signal(yardstick, device, dtype, allowed):
    text, signals = generate(Vitron.from_pretrained("vitron-tiny", device=device, dtype=dtype))
    assert "<module>" in text
    assert text == yardstick[0]
    assert len(signals) == len(yardstick[1]) > 0
    for found, wanted in zip(signals, yardstick[1], strict=True):
        assert (found.float() - wanted.float()).norm() < allowed * wanted.float().norm()


@pytest.mark.gpu  # tracing it takes a quarter of a minute on the CPU
def test_the_compiled_model_is_the_model():
    torch.compiler.reset()
    vitron = Vitron.from_pretrained("vitron-tiny", device="cuda", dtype="float32")
    ids = torch.arange(5, 25, device="cuda")[None]
    with torch.no_grad():
        wanted = vitron.model(ids).logits
        found = torch.compile(vitron.model.language_model)(input_ids=ids)
    head = vitron.model.get_output_embeddings()
    torch.testing.assert_close(head(found.last_hidden_state), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_a_request_leaves_no_memory_behind():
    vitron = Vitron.from_pretrained("vitron-tiny", device="cuda")
    generate(vitron)  # workspaces of the libraries
    gc.collect()
    before = torch.cuda.memory_allocated()
    generate(vitron)
    gc.collect()
    assert torch.cuda.memory_allocated() == before
