# SPDX-License-Identifier: Apache-2.0
"""A model of the real kind, small enough to run in a blink, with weights as they are drawn."""

import numpy as np
import pytest
import torch
from vitron.data import Example
from vitron.model import ConversationEncoder, VitronConfig, VitronForConditionalGeneration
from vitron.model.assembly import REGION_TOKEN, add_tokens, signal_tokens, special_tokens
from vitron.model.engine import Vitron
from vitron.protocol.contract import Instruction, Invocation
from vitron.protocol.media import Artefact
from vitron.protocol.messages import MediaPart, Message, PlacedRegion, RegionPart, TextPart, text_message

from .backbones import internvl


def make_processor():
    """Return the processor of a small InternVL, with the tokens of Vitron."""
    _, processor = internvl()
    add_tokens(processor.tokenizer, special_tokens())
    return processor


def make_config(processor, **settings):
    """Return the configuration of a small model over InternVL."""
    backbone, _ = internvl()
    backbone.text_config.vocab_size = len(processor.tokenizer)
    ids = processor.tokenizer.convert_tokens_to_ids
    chosen = {
        "backbone_config": backbone,
        "region_token_id": ids(REGION_TOKEN),
        "signal_token_ids": ids(signal_tokens()),
        "num_specific": 4,
        "mask_width": 16,
        "mask_grid": 4,
        "conditions": {"text_to_image": {"num_vectors": 3, "width": 8}},
    }
    return VitronConfig(**(chosen | settings))


def make_encoder(processor, config):
    return ConversationEncoder(processor, config)


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
def processor():
    return make_processor()


@pytest.fixture(scope="session")
def tokenizer(processor):
    return processor.tokenizer


@pytest.fixture(scope="session")
def model(processor):
    return make_model(make_config(processor))


@pytest.fixture(scope="session")
def encoder(processor, model):
    return make_encoder(processor, model.config)


@pytest.fixture(scope="session")
def vitron(model, processor):
    return Vitron(model, processor)
