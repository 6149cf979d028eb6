# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from common_kernels.runtime.hub import ModelNotFoundError
from itaclip.text import ClassList, LLMSource, Task, aux_texts
from itaclip.text.llm import _left_padded, _token_ids
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<system>",
    "<user>",
    "<assistant>",
    "cat",
    "dog",
    "ship",
    *"abcdefghij",
]
TEMPLATE = (
    "<s>{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    # as many models have it: a start token before everything that is tokenised as text
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    extra = ["<system>", "<user>", "<assistant>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=words, chat_template=TEMPLATE, additional_special_tokens=extra, **names
    )


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
        # strong weights, so that the answer depends on the question
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.5)
    # it says words and does not stop
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(WORDS)))
    model.lm_head.bias.data[:7] = -1e4
    return model


@pytest.fixture
def source(model, tokenizer):
    def make(**options):
        task = Task(**{"max_new_tokens": 6, "retries": 0, **options.pop("task", {})})
        return LLMSource(model, tokenizer, task=task, **options)

    return make


@pytest.fixture
def scripted(source, monkeypatch):
    """A source whose model answers by a list, and the conversations that it was given."""

    def make(*rounds, **options):
        asked, left = [], list(rounds)

        def generate(self, conversations):
            asked.append(conversations)
            return left.pop(0)

        monkeypatch.setattr(LLMSource, "_generate", generate)
        return source(**options), asked

    return make


def test_a_language_model_writes_texts(source):
    (text,) = source().aux(["cat"])
    assert len(text.split()) == 6
    assert set(text.split()) <= set(WORDS[7:])


def test_it_is_a_text_source(source):
    classes = ClassList.build(["cat"], background=["sky"])
    assert aux_texts(source(), classes) == [tuple(source().aux(["cat"]))]


def test_the_conversation_has_one_start_token(tokenizer):
    ids = _token_ids(tokenizer, Task().ask("cat"))
    assert ids.count(1) == 1
    assert ids[0] == 1
    assert ids[-4:] == [WORDS.index("cat"), WORDS.index("<unk>"), 2, WORDS.index("<assistant>")]


def test_models_without_system_role_or_template(tokenizer):
    def with_template(template):
        copy = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>")
        copy.chat_template = template
        return _token_ids(copy, Task().ask("cat"))

    strict = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + TEMPLATE
    )
    ids = with_template(strict)
    assert ids.count(WORDS.index("<user>")) == 1
    assert ids.count(WORDS.index("<system>")) == 0
    plain = with_template(None)
    assert plain.count(1) == 1
    assert len(plain) > len(ids) - 6


def test_batches_change_nothing(source):
    names = ["cat", "dog", "ship", "a b c d"]
    one = [a.raw for a in source(task={"batch_size": 1}).answers(names)]
    assert [a.raw for a in source(task={"batch_size": 4}).answers(names)] == one
    assert [a.raw for a in source(task={"batch_size": 3}).answers(names)] == one
    assert len(set(one)) > 1


def test_padding_stands_on_the_left():
    ids, mask = _left_padded([[5, 6], [7, 8, 9]], 0)
    assert ids.tolist() == [[0, 5, 6], [7, 8, 9]]
    assert mask.tolist() == [[0, 1, 1], [1, 1, 1]]


def test_seeds(source):
    def say(seed):
        return [answer.raw for answer in source(task={"seed": seed}).answers(["cat", "dog"])]

    before = torch.random.get_rng_state()
    first = say(1)
    torch.manual_seed(5)
    assert say(1) == first
    assert say(2) != first
    assert say(None) == say(None)
    torch.random.set_rng_state(before)
    say(1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_answers_that_cannot_be_used_are_sent_back(scripted):
    source, asked = scripted(
        ["the dog is old", "canine"], ["feline"], task={"kind": "synonyms", "retries": 1}
    )
    assert source.aux(["cat", "dog"]) == ["feline", "canine"]
    assert [len(part) for part in asked] == [2, 1]
    assert asked[1][0][-2:] == [
        {"role": "assistant", "content": "the dog is old"},
        {
            "role": "user",
            "content": "That cannot be used: 'the dog is old' is not one word. Answer again by the rules.",
        },
    ]


def test_names_that_fail_are_told(scripted):
    source, _ = scripted(["feline", "x y"], ["x y z"], task={"kind": "synonyms", "retries": 1})
    first, second = source.answers(["cat", "dog"])
    assert (first.text, first.fault, first.attempts) == ("feline", None, 1)
    assert (second.text, second.raw, second.attempts) == (None, "x y z", 2)
    source, _ = scripted(["feline", "x y"], ["x y z"], task={"kind": "synonyms", "retries": 1})
    with pytest.raises(ValueError, match=r"for 'dog' in 2 answers: 'x y z' is not one word .1 of 2 names"):
        source.aux(["cat", "dog"])


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        (["pet", "Pet"], "'Pet' is already the answer for 'cat'"),
        (["pet", "cat"], "'cat' is the name of another thing"),
    ],
)
def test_classes_do_not_become_alike(scripted, answers, fault):
    source, _ = scripted(answers, task={"kind": "synonyms"})
    assert source.answers(["cat", "dog"])[1].fault == fault


def test_a_name_that_comes_twice_is_asked_once(scripted):
    source, asked = scripted(["feline"], task={"kind": "synonyms"})
    assert source.aux(["cat", "cat"]) == ["feline", "feline"]
    assert len(asked[0]) == 1


def test_raw_answers_are_kept(scripted, tmp_path):
    options = {"task": {"kind": "synonyms", "retries": 1}, "cache": tmp_path}
    source, _ = scripted(["x y", "canine"], [" 'feline'. "], **options)
    assert source.aux(["cat", "dog"]) == ["feline", "canine"]
    source, asked = scripted(**options)
    assert source.aux(["dog", "cat"]) == ["canine", "feline"]
    assert asked == []
    files = list((tmp_path / "answers").iterdir())
    record = next(r for r in (json.loads(f.read_text()) for f in files) if r["answer"] == " 'feline'. ")
    assert len(files) == 3
    assert record["messages"][1] == {"role": "user", "content": "cat:"}
    source, asked = scripted(["feline", "canine"], task={"kind": "synonyms", "seed": 1}, cache=tmp_path)
    source.aux(["cat", "dog"])
    assert len(asked) == 1
    for file in files:
        file.write_text("half a fi")
    source, asked = scripted(["feline"], **options)
    assert source.aux(["cat"]) == ["feline"]
    assert len(asked) == 1


def test_another_model_is_asked_anew(source, model, tokenizer, tmp_path):
    source(cache=tmp_path).answers(["cat"])
    other = LlamaForCausalLM(model.config).eval()
    LLMSource(other, tokenizer, task=Task(max_new_tokens=6, retries=0), cache=tmp_path).answers(["cat"])
    assert len(list((tmp_path / "answers").iterdir())) == 2


def test_progress_counts_names(source):
    calls = []
    source(task={"batch_size": 2}, progress=lambda *call: calls.append(call)).answers(["cat", "dog", "ship"])
    assert calls == [(2, 3), (3, 3)]


def test_a_folder_is_loaded_when_it_is_needed(model, tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "lm"
    plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    task = Task(max_new_tokens=6, retries=0)
    options = {"task": task, "device": "cpu", "cache": tmp_path / "cache"}
    answers = LLMSource(folder, **options).answers(["cat"])
    assert answers == LLMSource(plain, tokenizer, task=task).answers(["cat"])
    monkeypatch.setattr(LLMSource, "_generate", None)
    assert LLMSource(str(folder), **options).answers(["cat"]) == answers


def test_models_that_cannot_be_used(tmp_path, model, tokenizer):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match=r"empty has no config\.json"):
        LLMSource(tmp_path / "empty", device="cpu").aux(["cat"])
    tokenizer.save_pretrained(tmp_path / "pickle")
    model.config.save_pretrained(tmp_path / "pickle")
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(
        ModelNotFoundError, match=r"language model '.*pickle' cannot be loaded: .* safetensors weights"
    ):
        LLMSource(tmp_path / "pickle", device="cpu").aux(["cat"])
    with pytest.raises(ValueError, match="tokenizer is missing"):
        LLMSource(model)
