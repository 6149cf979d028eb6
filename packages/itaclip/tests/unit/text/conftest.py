# SPDX-License-Identifier: Apache-2.0
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg


@pytest.fixture(scope="session")
def make_clip():
    def make(seed=0, **text):
        settings = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2, **text}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vision = CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=16, image_size=32)
            model = CLIP(16, vision, CLIPTextCfg(**settings)).eval().requires_grad_(False)
            # far from the initial values, so that features differ clearly
            torch.nn.init.normal_(model.token_embedding.weight)
            torch.nn.init.normal_(model.positional_embedding)
        return model

    return make


@pytest.fixture(scope="session")
def clip(make_clip):
    return make_clip()


@pytest.fixture(scope="session")
def tokenizer():
    return open_clip.tokenizer.SimpleTokenizer()
