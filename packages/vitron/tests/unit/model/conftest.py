# SPDX-License-Identifier: Apache-2.0
"""A model of the real kind, small enough to run in a blink, with weights as they are drawn."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedTokenizerFast
from vitron.data import Example
from vitron.model import CHAT_TEMPLATES, ConversationEncoder, VitronConfig, VitronForConditionalGeneration
from vitron.model.assembly import make_processor, signal_tokens, special_tokens
from vitron.model.engine import Vitron
from vitron.protocol.contract import Instruction, Invocation
from vitron.protocol.media import Artefact
from vitron.protocol.messages import MediaPart, Message, PlacedRegion, RegionPart, TextPart, text_message

TEXTS = [
    "segment the red circle",
    "a blue star, a green ring",
    "Here it is.",
    "track the heart 0123456789 [, ]",
]


def make_tokenizer(template="compact"):
    special = special_tokens(template=template)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    end = CHAT_TEMPLATES[template].end_token
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=end, eos_token=end)


def language_config(vocab_size, width, *, layers, heads, tied=True):
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
    )


def tower_config(width):
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )


def make_config(tokenizer, **settings):
    ids = tokenizer.convert_tokens_to_ids
    text = language_config(len(tokenizer), 48, layers=2, heads=4)
    vision = tower_config(32)
    chosen = {
        "text_config": text,
        "vision_config": vision,
        "image_token_id": ids("<|image|>"),
        "region_token_id": ids("<|region|>"),
        "signal_token_ids": ids(signal_tokens()),
        "vision_layer": -1,
        "mask_width": 16,
        "image_size": 32,
        "conditions": {"text_to_image": {"num_vectors": 3, "width": 8}},
    }
    return VitronConfig(**(chosen | settings))


def make_encoder(tokenizer, config, template="compact"):
    return ConversationEncoder(make_processor(tokenizer, config, template=template), config)


def make_model(config, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VitronForConditionalGeneration(config).eval()


def make_image(seed=0, height=32, width=32):
    rng = np.random.default_rng(seed)
    return Artefact("image", rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_video(frames=3, seed=1):
    rng = np.random.default_rng(seed)
    return Artefact("video", rng.integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8))


def square(top=4, left=8, side=12, shape=(32, 32)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def segment(text="the red circle"):
    return Invocation(module="image_segmentation", instruction=(Instruction(verb="segment", text=text),))


def ask(*media, text="segment the red circle", regions=(), reply=("Here it is.", ()), masks=None, task="a"):
    """A conversation of one turn: media, regions, words; a message and its calls, or none."""
    content = [MediaPart(media=number) for number in range(len(media))]
    content += [RegionPart(region=number) for number in range(len(regions))]
    messages = [Message(role="user", content=(*content, TextPart(text=text)))]
    if reply is not None:
        messages.append(text_message("assistant", reply[0], *reply[1]))
    return Example(
        task=task,
        messages=tuple(messages),
        media=media,
        regions=tuple(PlacedRegion(media=0, mask=mask) for mask in regions),
        masks=masks or {},
        mask_media=dict.fromkeys(masks or {}, 0),
    )


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer):
    return make_model(make_config(tokenizer))


@pytest.fixture(scope="session")
def processor(tokenizer, model):
    return make_processor(tokenizer, model.config, template="compact")


@pytest.fixture(scope="session")
def encoder(processor, model):
    return ConversationEncoder(processor, model.config)


@pytest.fixture(scope="session")
def vitron(model, processor):
    return Vitron(model, processor)
