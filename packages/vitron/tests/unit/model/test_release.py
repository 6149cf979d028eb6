# SPDX-License-Identifier: Apache-2.0
"""Weights of the authors' release reach their places in a LLaVA of transformers."""

import pytest
import torch
from vitron.model.assembly import attach_to
from vitron.model.engine import Vitron
from vitron.model.release import load_release_weights, release_names

from .backbones import make_backbone
from .conftest import ask, make_image, square

REGIONS = {
    "model.region_extractor.feat_linear.0.": "region_encoder.features.0.",
    "model.region_extractor.feat_linear.1.": "region_encoder.features.2.",
    "model.region_extractor.feat_linear.2.": "region_encoder.features.4.",
    "model.region_extractor.loc.0.": "region_encoder.location.0.",
    "model.region_extractor.loc.1.": "region_encoder.location.2.",
}
BACKBONE = {
    "model.mm_projector.0.": "backbone.model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "backbone.model.multi_modal_projector.linear_2.",
    "lm_head.": "backbone.lm_head.",
    "model.": "backbone.model.language_model.",
}


def attached(seed=0):
    return attach_to(
        *make_backbone("llava", seed=seed), seed=seed, settings={"region_form": "published", "mask_width": 16}
    )


def renamed(model, rows=None):
    """Return the weights of a model under the names of the release, with so many rows of tokens."""
    out = {"model.image_tower.image_tower.embeddings.class_embedding": torch.zeros(3)}
    for name, weight in model.state_dict().items():
        for theirs, ours in (REGIONS | BACKBONE).items():
            if name.startswith(ours):
                kept = weight[:rows] if "embed_tokens" in name or "lm_head" in name else weight
                out[theirs + name.removeprefix(ours)] = kept.clone()
                break
    return out


def test_all_weights_of_the_release_find_their_place():
    source, _ = attached(1)
    model, processor = attached(0)
    rows = len(processor.tokenizer) - 15
    tokens = model.get_input_embeddings().weight.detach().clone()
    names = load_release_weights(model, renamed(source, rows))
    own = ("backbone.model.vision_tower.", "mask_head.", "signal_norm.", "condition_heads.")
    for name, weight in model.state_dict().items():
        if not name.startswith(own):
            assert name in names, name
            count = rows if "embed_tokens" in name or "lm_head" in name else len(weight)
            assert torch.equal(weight[:count], source.state_dict()[name][:count]), name
    assert torch.equal(model.get_input_embeddings().weight[rows:], tokens[rows:])
    example = ask(make_image(0), regions=(square(),), reply=None)
    with torch.no_grad():
        assert model(**Vitron(model, processor).encoder([example]).inputs()).logits.isfinite().all()


def test_what_does_not_fit_is_refused():
    model, _ = attached()
    with pytest.raises(ValueError, match=r"lm_head.weight of size \(9, 3\) does not fit"):
        load_release_weights(model, {"lm_head.weight": torch.zeros(9, 3)})
    with pytest.raises(ValueError, match="which are not the release's"):
        release_names({"model.region_extractor.a.weight": torch.zeros(4, 4)})
