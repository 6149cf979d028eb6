# SPDX-License-Identifier: Apache-2.0
"""Weights in fewer bits say nearly the same (check 31)."""

import pytest
import torch
from vitron.model.engine import Vitron
from vitron.model.precision import UNQUANTISED, choose_precision

from .conftest import ask

TOKENS = 1000
REQUESTS = (
    "draw {} at the left",
    "make a clip of {} moving right",
    "please draw {} on a black background",
    "paint {}, then segment it",
    "hello, what can you do with {}?",
)
THINGS = [
    f"a {colour} {shape}"
    for colour in ("red", "blue", "green", "yellow")
    for shape in ("circle", "square", "star", "triangle")
]


@pytest.fixture(scope="module")
def replies():
    """Conversations of the shipped model, and what it takes for the most likely next token."""
    vitron = Vitron.from_pretrained("vitron-tiny", device="cpu")
    found = list[tuple[torch.Tensor, torch.Tensor]]()
    for request in (each.format(thing) for thing in THINGS for each in REQUESTS):
        ids = vitron.encoder.encode(ask(text=request, reply=None)).ids
        with torch.no_grad():
            whole = vitron.model.generate(
                torch.tensor([list(ids)]),
                do_sample=False,
                max_new_tokens=40,
                pad_token_id=vitron.encoder.end_id,
            )
            found.append((whole, vitron.model(whole).logits.argmax(-1)))
        if sum(ids.shape[1] for ids, _ in found) >= TOKENS:
            return found
    raise AssertionError(f"the talks have less than {TOKENS} tokens")


@pytest.mark.parametrize(("dtype", "kind"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_fewer_bits_mostly_generate_the_same(replies, dtype, kind):
    pytest.importorskip("bitsandbytes", reason="fewer bits need bitsandbytes")
    vitron = Vitron.from_pretrained(
        "vitron-tiny", device="cuda" if torch.cuda.is_available() else "cpu", dtype=dtype
    )
    kinds = {name: type(each).__name__ for name, each in vitron.model.named_modules()}
    fewer = [name for name, each in kinds.items() if each == kind]
    assert any(".language_model." in name for name in fewer)
    assert not any(part in name.split(".") for name in fewer for part in UNQUANTISED)
    same = total = 0
    with torch.no_grad():
        for ids, wanted in replies:
            found = vitron.model(ids.to(vitron.device)).logits.argmax(-1).cpu()
            same += int((found == wanted).sum())
            total += wanted.numel()
    assert same / total >= 0.95


def test_what_is_no_precision_is_told(monkeypatch):
    assert choose_precision("auto", "cpu") == (torch.float32, {})
    assert choose_precision("auto", "cuda:1") == (torch.bfloat16, {})
    for wrong in ("int8", "flaot32", "2bit"):
        with pytest.raises(ValueError, match="dtype must be auto"):
            choose_precision(wrong, "cpu")
    monkeypatch.setattr("vitron.model.precision.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"4bit needs bitsandbytes.*vitron\[quantised\]"):
        choose_precision("4bit", "cpu")
