# SPDX-License-Identifier: Apache-2.0
"""Chat templates of any model: what the model generates, whatever the template does (check 27)."""

import pytest
from vitron.model import chat_template
from vitron.model.hf.chat import ChatRenderer, list_templates

from .backbones import GEMMA, LLAVA, SMOLVLM, internvl, make_tokenizer


def renderer(template, image="<image>", video="<video>"):
    _, processor = internvl()
    processor.tokenizer = make_tokenizer(
        "<start_of_turn>", "<end_of_turn>", "<end_of_utterance>", "</think>", bos_token="<s>"
    )
    processor.chat_template = template
    return ChatRenderer(processor, image, video)


def part(text):
    return {"type": "text", "text": text}


QUESTION = {"role": "user", "content": [part("img_1: "), {"type": "image"}, part("\n"), part("hello")]}
ANSWER = {"role": "assistant", "content": [part("hi there.")]}
SYSTEM = {"role": "system", "content": [part("be kind")]}
AGAIN = {"role": "user", "content": [part("again")]}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "compact",
            [
                "<|user|>img_1: <image>\nhello<|assistant|>",
                "hi there.<|im_end|>",
                "<|user|>again<|assistant|>",
            ],
        ),
        (
            "chatml",
            [
                "<|im_start|>user\nimg_1: <image>\nhello<|im_end|>\n<|im_start|>assistant\n",
                "hi there.<|im_end|>",
                "\n<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n",
            ],
        ),
        (
            "vicuna",  # the model generates the space, and no space stands before the next turn
            [
                "<s>A chat between a curious user and an artificial intelligence assistant. "
                "The assistant gives helpful, detailed, and polite answers to the user's questions. "
                "USER: img_1: <image>\nhello ASSISTANT:",
                " hi there.<|im_end|>",
                "USER: again ASSISTANT:",
            ],
        ),
        (
            "llama_2",
            ["<s>[INST] img_1: <image>\nhello [/INST]", " hi there. <|im_end|>", "<s>[INST] again [/INST]"],
        ),
    ],
)
def test_templates_of_the_package(name, wanted):
    chat = renderer(chat_template(name, "<image>", "<video>"))
    assert [each.text for each in chat.segments([QUESTION, ANSWER, AGAIN])] == wanted
    assert [each.is_generated for each in chat.segments([QUESTION, ANSWER, AGAIN])] == [False, True, False]
    assert not chat.rewrites_history


def test_a_system_message_stands_where_the_template_puts_it():
    found = {
        name: renderer(chat_template(name, "<image>")).segments([SYSTEM, QUESTION])[0].text
        for name in list_templates()
    }
    assert found["vicuna"].startswith("<s>be kind USER: ")
    assert found["llama_2"].startswith("<s>[INST] <<SYS>>\nbe kind\n<</SYS>>\n\nimg_1: ")
    assert found["compact"].startswith("<|system|>be kind<|user|>")


@pytest.mark.parametrize(
    ("typed", "read"), [("SEGMENT IT", "Segment it"), ("Segment IT", "Segment IT"), ("42", "42")]
)
def test_the_small_models_template_reads_capitals_as_small_letters(typed, read):
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": typed}]}
    text = renderer(chat_template("compact", "<image>", "<video>")).segments([message])[0].text
    assert text == f"<|user|><image>{read}<|assistant|>"


def test_a_template_that_collects_images_keeps_their_places():
    chat = renderer(LLAVA, video=None)
    texts = [each.text for each in chat.segments([QUESTION, ANSWER, AGAIN])]
    assert texts == [
        "USER: img_1: <image>\nhello ASSISTANT:",
        " hi there.<|im_end|>",
        "USER: again ASSISTANT:",
    ]


def test_templates_end_messages_by_their_own_token():
    found = renderer(GEMMA, image="<start_of_image>", video=None)
    assert found.end == "<end_of_turn>"
    assert found.segments([QUESTION, ANSWER])[1].text == "hi there.<end_of_turn>"
    found = renderer(SMOLVLM, video=None)
    assert (found.end, found.lead) == ("<end_of_utterance>", " ")


def test_a_template_that_takes_strings_alone_gets_placeholders_as_text():
    plain = (
        "{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
    )
    texts = [each.text for each in renderer(plain).segments([SYSTEM, QUESTION, ANSWER])]
    assert texts == [
        "[system] be kind<|im_end|>[user] img_1: <image>\nhello<|im_end|>[assistant] ",
        "hi there.<|im_end|>",
    ]


def test_without_a_place_for_system_text_the_user_says_it():
    refusing = (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ '[' + message['role'] + '] ' + message['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
    )
    (segment,) = renderer(refusing).segments([SYSTEM, AGAIN])
    assert segment.text == "[user] be kind\n\nagain<|im_end|>[assistant] "


def test_templates_that_rewrite_history_are_known():
    thinking = (
        "{% for message in messages %}{{ '[' + message['role'] + '] ' }}"
        "{% if message['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
        "{{ message['content'][0]['text'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
    )
    assert renderer(thinking, image=None, video=None).rewrites_history


def test_a_model_without_a_template_is_told_and_unknown_names_refused():
    with pytest.raises(ValueError, match="no chat template: attach it with one of chatml"):
        renderer(None)
    with pytest.raises(ValueError, match="there is no template 'llama9'"):
        chat_template("llama9", "<image>")


def test_a_template_that_drops_messages_is_refused():
    dropping = "{{ messages[-1]['content'][0]['text'] }}{% if add_generation_prompt %}{{ '>' }}{% endif %}"
    chat = renderer(dropping, image=None, video=None)
    with pytest.raises(ValueError, match="drops or repeats an assistant message"):
        chat.segments([QUESTION, ANSWER, AGAIN])


def test_text_of_the_user_is_never_taken_for_the_place_of_an_answer():
    """The places of answers are marked by private characters, which a user may send as well."""
    odd = {"role": "user", "content": [part("\ue0000\ue001 and \ue0001\ue001")]}
    found = renderer(chat_template("chatml", "<image>")).segments([odd, ANSWER, AGAIN])
    assert [each.is_generated for each in found] == [False, True, False]
    assert found[1].text == "hi there.<|im_end|>"
