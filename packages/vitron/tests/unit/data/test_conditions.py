# SPDX-License-Identifier: Apache-2.0
"""Prompt embeddings that a pipeline computes are stored once, and found again by prompt."""

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
import torch
from vitron.data import conditions as module
from vitron.data.conditions import compute_conditions, prompt_of, read_conditions
from vitron.data.drawn import write_drawn_data
from vitron.data.files import read_samples
from vitron.errors import DataError
from vitron.protocol.contract import Instruction, Invocation

from ..specialists.conftest import tiny_pipeline  # noqa: TID252  # random weights in the format of diffusers

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = tiny_pipeline("sd")
    folder = tmp_path_factory.mktemp("pipeline") / "sd"
    pipe.save_pretrained(folder)
    return pipe, folder


@pytest.fixture
def drawn(tmp_path):
    write_drawn_data(tmp_path / "drawn", scenes=3)
    return tmp_path / "drawn"


def prompts(folder, name="text_to_image"):
    calls = (call for _, each in read_samples(folder) for message in each.messages for call in message.calls)
    return [prompt_of(call) for call in calls if call.module == name]


def test_embeddings_are_those_of_the_pipeline(pipeline, drawn, monkeypatch):
    monkeypatch.setattr(module, "_PER_FILE", 2)
    pipe, folder = pipeline
    stored = compute_conditions(drawn, "text_to_image", folder, device="cpu", batch_size=1)
    assert read_conditions(drawn) == {"text_to_image": stored}
    assert len(set(stored.files.values())) == 2
    for prompt in prompts(drawn):
        with torch.no_grad():
            wanted = pipe.encode_prompt(prompt, "cpu", 1, False)[0][0].numpy()
        assert stored[prompt].shape == (stored.num_vectors, stored.width) == wanted.shape
        np.testing.assert_allclose(stored[prompt], wanted, atol=2e-3, rtol=2e-3)  # half precision
    assert "something else" not in stored


def test_what_an_import_of_diffusers_warns_of_is_not_shown(pipeline, drawn, monkeypatch, caplog):
    from diffusers.pipelines import pipeline_utils

    class Loud(ModuleType):
        def __getattr__(self, name):
            logging.getLogger("bitsandbytes").warning("no kernels")
            return getattr(pipeline_utils, name)

    monkeypatch.setitem(sys.modules, pipeline_utils.__name__, Loud("loud"))
    compute_conditions(drawn, "text_to_image", pipeline[1], device="cpu")
    assert "no kernels" not in caplog.text


def test_what_the_same_pipeline_computed_is_kept(pipeline, drawn, monkeypatch, run):
    _, folder = pipeline
    first = compute_conditions(drawn, "A", folder, device="cpu")
    monkeypatch.setattr(module, "_encoder", lambda *_: pytest.fail("nothing is missing"))
    with monkeypatch.context() as patch:  # the folder may well be read-only by now
        patch.setattr(module, "FileLock", lambda *_: pytest.fail("nothing is written"))
        assert compute_conditions(drawn, "text_to_image", folder, device="cpu") == first
    shown = json.loads(
        run("data", "conditions", drawn, "--pipeline", folder, "--device", "cpu", "--json").out
    )
    assert shown["prompts"] == len(set(prompts(drawn)))
    # more data: only the new prompts are computed
    lines = (drawn / "data.jsonl").read_text().splitlines()
    (line,) = [each for each in lines if '"text_to_image-0"' in each]
    new = line.replace("text_to_image-0", "new").replace('"a ', '"one ')
    (drawn / "data.jsonl").write_text("\n".join([*lines, new]) + "\n")
    asked = []

    def encoder(*_):
        def encode(texts):
            asked.extend(texts)
            return np.ones((len(texts), first.num_vectors, first.width), np.float16)

        return encode

    monkeypatch.setattr(module, "_encoder", encoder)
    stored = compute_conditions(drawn, "text_to_image", folder, device="cpu")
    assert asked == [text for text in prompts(drawn) if text.startswith("one ")]
    assert np.array_equal(stored[prompts(drawn)[0]], first[prompts(drawn)[0]])
    # another pipeline: all are computed
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "x").write_text("x")
    asked.clear()
    compute_conditions(drawn, "text_to_image", folder.parent / "other", device="cpu")
    assert len(asked) == len(set(prompts(drawn)))


def test_a_mistyped_pipeline_leaves_what_was_computed(pipeline, drawn, run, sentence):
    first = compute_conditions(drawn, "text_to_image", pipeline[1], device="cpu")
    shown = run("data", "conditions", drawn, "--pipeline", "nosuch", "--device", "cpu", code=2)
    assert "no model 'nosuch'" in sentence(shown)
    assert read_conditions(drawn) == {"text_to_image": first}


def test_errors_are_sentences(drawn, tmp_path):
    with pytest.raises(ValueError, match="module must be one of"):
        compute_conditions(drawn, "x", tmp_path)
    lines = (drawn / "data.jsonl").read_text().splitlines()
    (tmp_path / "data.jsonl").write_text("\n".join(each for each in lines if "to_image" not in each))
    with pytest.raises(DataError, match="holds no call of text_to_image"):
        compute_conditions(tmp_path, "text_to_image", tmp_path)
    place = drawn / "conditions" / "text_to_image"
    place.mkdir(parents=True)
    (place / "record.json").write_text('{"pipeline": 1}')
    with pytest.raises(DataError, match="is not a record"):
        read_conditions(drawn)


def test_a_prompt_is_the_text_of_all_instructions():
    parts = (Instruction(verb="generate", text=" a  red\nball "), Instruction(text="on grass"))
    assert prompt_of(Invocation(module="text_to_image", instruction=parts)) == "a red ball, on grass"


def test_of_several_at_once_one_computes(pipeline, drawn, monkeypatch):
    _, folder = pipeline
    encoders, make = [], module._encoder
    monkeypatch.setattr(module, "_encoder", lambda *args: encoders.append(args) or make(*args))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: compute_conditions(drawn, "A", folder, device="cpu"), range(3)))
    assert len(encoders) == 1
    assert found[1:] == found[:-1]
