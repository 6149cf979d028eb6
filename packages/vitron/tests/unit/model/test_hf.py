# SPDX-License-Identifier: Apache-2.0
"""Model and processor through the entry points of transformers."""

import subprocess
import sys
from importlib import resources

import pytest
import torch
import vitron  # noqa: F401  # registers the classes
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    InternVLProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    ProcessorMixin,
    pipeline,
)
from vitron.model import VitronConfig, VitronForConditionalGeneration
from vitron.model.assembly import attach, attach_to, join_parts
from vitron.model.engine import Vitron
from vitron.protocol import parse
from vitron.protocol.messages import MediaPart, Message, TextPart, text_message
from vitron.protocol.sampling import SamplingParams

from .backbones import LLAVA, make_backbone, make_tokenizer, square_tower, text_settings
from .conftest import ask, make_image, segment, square

SHIPPED = str(resources.files("vitron") / "assets" / "vitron-tiny")


@pytest.mark.parametrize(
    "wanted",
    [
        # the configuration is asked for first, as processors ask for it
        {"AutoConfig": "VitronConfig", "AutoProcessor": "InternVLProcessor"},
        {"AutoModelForImageTextToText": "VitronForConditionalGeneration"},
    ],
    ids=["configuration", "model"],
)
def test_auto_classes_know_the_shipped_model_after_the_import_alone(wanted):
    code = f"""
import sys, vitron
assert "torch" not in sys.modules and "transformers" not in sys.modules
import transformers
for auto in {list(wanted)}:
    print(type(getattr(transformers, auto).from_pretrained({SHIPPED!r})).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == list(wanted.values()), done.stderr


def test_what_is_saved_is_loaded_by_the_auto_classes(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "chat_template.jinja"} <= names
    assert {"tokenizer.json", "tokenizer_config.json"} <= names
    assert isinstance(AutoConfig.from_pretrained(tmp_path), VitronConfig)
    for auto in (AutoModel, AutoModelForImageTextToText):
        other = auto.from_pretrained(tmp_path)
        assert isinstance(other, VitronForConditionalGeneration)
        assert other.state_dict().keys() == model.state_dict().keys()
        for name, weight in model.state_dict().items():
            assert torch.equal(other.state_dict()[name], weight), name
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, InternVLProcessor)
    assert again.chat_template == processor.chat_template
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.get_vocab() == processor.tokenizer.get_vocab()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_is_an_argument(dtype):
    assert AutoModel.from_pretrained(SHIPPED, dtype=dtype).dtype == dtype


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_kind_of_attention_is_an_argument(attention):
    model = AutoModel.from_pretrained(SHIPPED, attn_implementation=attention)
    assert model.config.text._attn_implementation == attention
    assert model.get_decoder().config._attn_implementation == attention


def test_a_device_map_is_passed_on():
    mapped = Vitron.from_pretrained("vitron-tiny", device_map={"": "cpu"})
    assert {each.device.type for each in mapped.model.parameters()} == {"cpu"}


@pytest.fixture(scope="module")
def shipped():
    return Vitron.from_pretrained("vitron-tiny", device="cpu")


def test_a_prompt_of_the_shipped_model(shipped):
    region = square(shape=(64, 64))
    example = ask(make_image(0, 64, 64), regions=(region,), text="what is <this>?", reply=None)
    encoder = shipped.encoder
    image = "<|image|>" * 16
    text = encoder.decode(encoder.encode(example).ids, keep_end=True)
    start, end = (getattr(encoder.tokenizer, name) for name in ("start_image_token", "end_image_token"))
    assert text == (
        f"<|user|>img_1: {start}{image}{end}\nregion_1: <|region|>\nwhat is &lt;this>?<|assistant|>"
    )


def test_generate_of_transformers_gives_the_text_of_the_stream(shipped):
    image = make_image(0, 64, 64)
    message = Message(role="user", content=(MediaPart(media=0), TextPart(text="what do you see?")))
    content = [
        {"type": "text", "text": "img_1: "},
        {"type": "image", "image": image.frames[0]},
        {"type": "text", "text": "\nwhat do you see?"},
    ]
    inputs = shipped.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = shipped.model.generate(**inputs, do_sample=False, max_new_tokens=40)
    sampling = SamplingParams(max_new_tokens=40, constrained=False)
    streamed = "".join(chunk.text for chunk in shipped.stream([message], [image], [], sampling))
    assert streamed == shipped.encoder.decode(ids[0, inputs["input_ids"].shape[1] :].tolist())


def test_the_pipeline_of_transformers_runs_the_shipped_folder(shipped):
    runner = pipeline("image-text-to-text", model=SHIPPED, device="cpu")
    assert isinstance(runner.model, VitronForConditionalGeneration)
    assert isinstance(runner.processor, ProcessorMixin)
    image, words = make_image(0, 64, 64), "segment the red circle"
    content = [
        {"type": "text", "text": "img_1: "},
        {"type": "image", "image": Image.fromarray(image.frames[0])},
        {"type": "text", "text": f"\n{words}"},
    ]
    (found,) = runner(
        [{"role": "user", "content": content}],
        generate_kwargs={"do_sample": False, "max_new_tokens": 60},
        return_full_text=False,
        skip_special_tokens=False,
    )
    message = Message(role="user", content=(MediaPart(media=0), TextPart(text=words)))
    streamed = shipped.stream([message], [image], [], SamplingParams(max_new_tokens=60, constrained=False))
    text = found["generated_text"].removesuffix("<|im_end|>")
    assert text == "".join(chunk.text for chunk in streamed)
    assert [call.module for call in parse(text).invocations] == ["image_segmentation"]


def test_the_mask_of_generated_tokens_is_what_is_learnt(shipped):
    messages = [text_message("user", "hello"), text_message("assistant", "hi", segment())]
    encoder = shipped.encoder
    encoded = encoder.encode(ask(text="hello", reply=("hi", (segment(),))))
    found = shipped.processor.apply_chat_template(
        [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": encoder.assistant_text(messages[1])},
        ],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert found["input_ids"] == [encoded.ids]
    assert found["assistant_masks"] == [[int(label != -100) for label in encoded.labels]]


def test_new_tokens_begin_at_the_mean_of_the_others():
    backbone, processor = make_backbone("llava")
    before = backbone.get_input_embeddings().weight.clone()
    count = len(processor.tokenizer)
    model, _ = attach_to(backbone, processor)
    tokens = processor.tokenizer
    assert len(tokens) == count + 15
    assert tokens("<module> <sig_s3><|region|>", add_special_tokens=False)["input_ids"][:1] == [
        tokens.convert_tokens_to_ids("<module>")
    ]
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert len(part.weight) == count + 15
        torch.testing.assert_close(part.weight[-1], part.weight[:count].mean(0))
    assert torch.equal(model.get_input_embeddings().weight[:count], before)
    again, _ = attach_to(backbone, processor)  # known tokens are kept
    assert len(again.get_input_embeddings().weight) == count + 15
    assert again.config.signal_token_ids == model.config.signal_token_ids


def test_heads_depend_on_the_seed_alone():
    found = [attach_to(*make_backbone("internvl"), seed=seed)[0].mask_head.places for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_what_a_user_marks_is_not_cropped_away():
    backbone, processor = make_backbone("llava")
    assert processor.image_processor.do_center_crop
    attach_to(backbone, processor)
    assert not processor.image_processor.do_center_crop
    assert dict(processor.image_processor.size) == {"height": 32, "width": 32}


def test_a_model_that_reads_no_images_is_refused(tmp_path):
    MistralConfig(hidden_size=8, num_hidden_layers=1, vocab_size=9).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a model of type mistral, which reads no images"):
        attach(tmp_path)


def test_a_language_model_and_a_tower_become_a_llava(tmp_path, caplog):
    tokenizer = make_tokenizer(end="</s>", bos_token="<s>")
    text = LlamaConfig(**text_settings(tokenizer, tie_word_embeddings=False))
    language = LlamaForCausalLM(text)
    language.save_pretrained(tmp_path / "words")
    tokenizer.save_pretrained(tmp_path / "words")
    tower = CLIPVisionModel(CLIPVisionConfig(**square_tower("clip_vision_model")))
    tower.save_pretrained(tmp_path / "eyes")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "eyes"
    )
    backbone, processor = join_parts(tmp_path / "words", tmp_path / "eyes", template="vicuna")
    for name, weight in language.get_decoder().state_dict().items():
        found = backbone.get_decoder().state_dict()[name]
        assert torch.equal(found[: len(weight)], weight), name
    towers = (tower.state_dict(), backbone.get_encoder("image").state_dict())
    assert all(torch.equal(towers[0][name], towers[1][name]) for name in towers[1] if name in towers[0])
    assert set(towers[1]) <= set(towers[0])
    joined = Vitron(*attach_to(backbone, processor))
    example = ask(make_image(0), regions=(square(),), text="hello", reply=("hi", ()))
    encoded = joined.encoder.encode(example)
    text = joined.encoder.decode(encoded.ids, keep_end=True)
    assert text.startswith("<s>A chat between a curious user")
    assert text.endswith("hello ASSISTANT: hi</s>")
    with torch.no_grad():
        assert joined.model(**joined.encoder([example]).inputs()).logits.isfinite().all()


def test_a_model_without_a_template_gets_one_with_a_warning(caplog):
    backbone, processor = make_backbone("llava")
    assert processor.chat_template == LLAVA
    processor.chat_template = None
    attach_to(backbone, processor)
    assert "no chat template: 'vicuna' is used" in caplog.text
    assert "ASSISTANT:" in processor.chat_template
    with pytest.raises(ValueError, match="there is no template 'x'"):
        attach_to(*make_backbone("llava"), template="x")
