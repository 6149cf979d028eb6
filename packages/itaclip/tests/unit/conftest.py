# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A random CLIP model as open_clip keeps them: 32 px, patches of 8 px, 2 blocks."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIP(CONFIG["embed_dim"], CONFIG["vision_cfg"], CONFIG["text_cfg"])
        # far from the initial values, so that names differ clearly
        torch.nn.init.normal_(model.token_embedding.weight)
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    description = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
