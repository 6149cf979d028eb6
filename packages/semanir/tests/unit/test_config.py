# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from semanir import SemanIRConfig

TINY = {"architecture": "unet", "embed_dims": (8, 16), "num_heads": (1, 2), "depths": (1, 1, 1, 1)}


def test_survives_json():
    config = SemanIRConfig.preset("tiny")
    assert SemanIRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_preset_takes_changes():
    assert SemanIRConfig.preset("sr-small", upscale=4).upscale == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": (3, 2)}, "num_heads must divide"),
        ({"depths": (1, 1, 1)}, "unet of 2 levels has 4 stages"),
        ({"depths": (1, 0, 1, 1)}, "every stage needs a layer"),
        ({"similarity": "manhattan"}, "similarity must be one of"),
        ({"k": 0}, "k must be at least 1"),
        ({"mean": (0.5,)}, "mean needs one number per channel"),
        ({"out_channels": 1}, "mean must be empty"),
        ({"degradation_dim": -1}, "degradation_dim must not be negative"),
        ({"conv_blocks": (1,)}, "conv_blocks must match depths"),
        ({"architecture": "columnar"}, "a columnar network has one level"),
        ({"num_heads": (1,)}, "embed_dims and num_heads must match"),
    ],
)
def test_refuses_what_cannot_be_built(changes, message):
    with pytest.raises(ValueError, match=message):
        SemanIRConfig(**{**TINY, **changes})


def test_a_column_has_no_degradation_embedding():
    with pytest.raises(ValueError, match="degradation_dim belongs to the unet"):
        SemanIRConfig.preset("sr-small", degradation_dim=8)


@pytest.mark.parametrize(("upscale", "multiple"), [(1, 32), (2, 16), (3, 32), (4, 8)])
def test_a_unet_that_enlarges_pads_its_small_input(upscale, multiple):
    assert SemanIRConfig.preset("tiny", upscale=upscale).size_multiple == multiple


def test_refuses_unknown_names():
    with pytest.raises(ValueError, match="preset must be one of"):
        SemanIRConfig.preset("huge")
    with pytest.raises(ValueError, match="no field width"):
        SemanIRConfig.preset("tiny", width=3)
    with pytest.raises(ValueError, match="no field width"):
        SemanIRConfig.from_dict({**SemanIRConfig.preset("tiny").to_dict(), "width": 3})
