# SPDX-License-Identifier: Apache-2.0
"""Model and processor through the entry points of transformers."""

import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
import torch
import vitron  # noqa: F401  # registers the classes
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)
from vitron.data import Example
from vitron.model import ConversationEncoder, VitronConfig, VitronForConditionalGeneration, VitronProcessor
from vitron.model.engine import Vitron
from vitron.protocol.messages import MediaPart, Message, PlacedRegion, RegionPart, TextPart, text_message
from vitron.protocol.sampling import SamplingParams

from .conftest import make_image, make_video, segment, square

SHIPPED = str(resources.files("vitron") / "assets" / "vitron-tiny")


@pytest.mark.parametrize(
    ("auto", "wanted"),
    [
        ("AutoConfig", "VitronConfig"),
        ("AutoProcessor", "VitronProcessor"),
        ("AutoModelForImageTextToText", "VitronForConditionalGeneration"),
    ],
)
def test_auto_classes_know_the_shipped_model_after_the_import_alone(auto, wanted):
    code = f"""
import sys, vitron
assert "torch" not in sys.modules and "transformers" not in sys.modules
from transformers import {auto}
found = {auto}.from_pretrained({SHIPPED!r})
print(type(found).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [wanted], done.stderr


def test_transformers_may_be_imported_before():
    code = f"""
from transformers import AutoModel, AutoProcessor
import vitron
print(type(AutoProcessor.from_pretrained({SHIPPED!r})).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["VitronProcessor"], done.stderr


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
        for name, weight in model.state_dict().items():
            assert torch.equal(other.state_dict()[name], weight), name
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, VitronProcessor)
    assert again.to_dict() == processor.to_dict()
    assert again.chat_template == processor.chat_template
    messages = [text_message("user", "track the heart"), text_message("assistant", "ok", segment())]
    found = ConversationEncoder(again, model.config).tokens(messages, [])
    assert found == ConversationEncoder(processor, model.config).tokens(messages, [])
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == processor.tokenizer.eos_token
    images = AutoImageProcessor.from_pretrained(tmp_path)
    assert images.to_dict() == processor.image_processor.to_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_is_an_argument(dtype):
    assert AutoModel.from_pretrained(SHIPPED, dtype=dtype).dtype == dtype


@pytest.fixture(scope="module")
def shipped():
    model = AutoModelForImageTextToText.from_pretrained(SHIPPED, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(SHIPPED)


def test_chat_templates_give_the_inputs_of_the_encoder(shipped):
    model, processor = shipped
    image, video = make_image(0, 40, 64), make_video(12)
    example = Example(
        task="",
        messages=(
            Message(
                role="user",
                content=(MediaPart(media=0), RegionPart(region=0), MediaPart(media=1), TextPart(text="so?")),
            ),
            text_message("assistant", "a star."),
            text_message("user", "and now?"),
        ),
        media=(image, video),
        regions=(PlacedRegion(media=1, mask=square(), frame=11),),
    )
    wanted = ConversationEncoder(processor, model.config)([example])
    conversation = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": Image.fromarray(image.frames[0])},
                {"type": "region"},
                {"type": "video", "video": video.frames},
                {"type": "text", "text": "so?"},
            ],
        },
        {"role": "assistant", "content": "a star."},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
    ]
    found = processor.apply_chat_template(
        conversation,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"regions": [(1, square(), 11)]},
    )
    assert set(found) == set(wanted.inputs())
    for name, each in wanted.inputs().items():
        assert torch.equal(found[name], each), name


def test_the_mask_of_generated_tokens_is_what_is_learnt(shipped):
    model, processor = shipped
    messages = [text_message("user", "hello"), text_message("assistant", "hi", segment())]
    encoder = ConversationEncoder(processor, model.config)
    ids, labels = encoder.tokens(messages, [])
    found = processor.apply_chat_template(
        [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": encoder.assistant_text(messages[1])},
        ],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert found["input_ids"] == [ids]
    assert found["assistant_masks"] == [[int(label != -100) for label in labels]]


def test_generate_of_transformers_gives_the_text_of_the_stream(shipped):
    model, processor = shipped
    image = make_image(0, 64, 64)
    content = [{"type": "image", "image": image.frames[0]}, {"type": "text", "text": "what do you see?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=40)
    message = Message(role="user", content=(MediaPart(media=0), TextPart(text="what do you see?")))
    generator = Vitron(model, processor)
    sampling = SamplingParams(max_new_tokens=40, constrained=False)
    streamed = "".join(chunk.text for chunk in generator.stream([message], [image], [], sampling))
    assert streamed == generator.encoder.decode(ids[0, inputs["input_ids"].shape[1] :].tolist())


def test_media_and_regions_must_fit_their_placeholders(processor):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="more placeholders"):
        processor(text="<|image|><|image|>", images=[image])
    with pytest.raises(ValueError, match="more media than placeholders"):
        processor(text="<|image|>", images=[image, image])
    with pytest.raises(ValueError, match="1 placeholders of regions, and there are 0"):
        processor(text="<|image|><|region|>", images=[image])
    with pytest.raises(ValueError, match="uint8"):
        processor(text="<|image|>", images=[image.astype(np.float32)])
    with pytest.raises(ValueError, match="audio"):
        processor(text="x", audio=[0.0])
