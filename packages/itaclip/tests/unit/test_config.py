# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from itaclip import AttentionConfig, ITACLIPConfig
from itaclip.methods import DATASETS


@pytest.mark.parametrize("dataset", [None, *DATASETS])
@pytest.mark.parametrize("name", ITACLIPConfig.presets())
def test_presets_survive_json(name, dataset):
    config = ITACLIPConfig.preset(name, dataset=dataset)
    assert ITACLIPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc21", (336, 60.0, 0.1, 0.1, 0.7, 0.05)),
        ("context60", (336, 55.0, 0.1, None, 0.75, 0.15)),
        ("coco-object", (336, 50.0, 0.1, None, 0.75, 0.1)),
        ("coco-stuff", (448, 40.0, 0.0, None, 0.75, 0.2)),
        ("cityscapes", (560, 40.0, 0.0, None, 0.7, 0.05)),
    ],
)
def test_published_settings(name, expected):
    c = ITACLIPConfig.preset("itaclip", dataset=name)
    assert (c.resize_short, c.logit_scale, c.prob_threshold, c.area_threshold, c.lam, c.alpha) == expected
    assert (c.crop, c.stride, c.resize_long, c.pamr_steps, c.pamr_dilations) == (224, 28, 2048, 10, (8, 16))
    assert len(c.branches) == 5
    assert c.closing
    assert c.attention == AttentionConfig()


def test_relative_depths_are_the_published_layers():
    relative = ITACLIPConfig.preset("itaclip").attention
    assert relative.resolve_layers(12) == (7, 8, 10)
    assert relative.resolve_layers(24) == (14, 16, 20)
    assert relative.resolve_layers(6) == (4, 4, 5)
    assert AttentionConfig(mid_layers=(0.01, 0.99)).resolve_layers(4) == (1, 3)


def test_layers_past_the_last_are_refused():
    with pytest.raises(ValueError, match="before the last of 6 blocks, got 7"):
        AttentionConfig().resolve_layers(6)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"pairs": ()}, "pairs must be"),
        ({"pairs": "qq"}, "pairs must be"),
        ({"pairs": ("qx",)}, "pairs must be"),
        ({"mid_pairs": ("kq",)}, "mid_pairs must be"),
        ({"mid_layers": (0,)}, "mid_layers must be"),
        ({"mid_layers": (1.5,)}, "mid_layers must be"),
        ({"mid_weight": 1.1}, "mid_weight must lie"),
        ({"gain": float("nan")}, "gain must be"),
        ({"locality": -1.0}, "locality must be"),
    ],
    ids=str,
)
def test_bad_attention(changes, rule):
    with pytest.raises(ValueError, match=rule):
        AttentionConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"positions": "new"}, "positions must be"),
        ({"templates": "many"}, "templates must be"),
        ({"stride": 0}, "stride must be"),
        ({"stride": 300}, "at most crop"),
        ({"resize_short": -1}, "resize_short must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"branches": ()}, "branches must be"),
        ({"branches": ("identity", "identity")}, "not repeat"),
        ({"branches": ("rotate",)}, "branches must be"),
        ({"blur_kernel": 4}, "odd"),
        ({"lam": 2.0}, "lam must lie"),
        ({"area_threshold": -0.1}, "area_threshold must lie"),
        ({"logit_scale": 0.0}, "logit_scale must be"),
        ({"pamr_dilations": ()}, "pamr_dilations must be"),
        ({"pamr_dilations": (0,)}, "pamr_dilations must be"),
        ({"shade": 1}, "no field shade"),
    ],
    ids=str,
)
def test_bad_settings(changes, rule):
    with pytest.raises(ValueError, match=rule):
        ITACLIPConfig.preset("itaclip", **changes)


def test_unknown_names():
    with pytest.raises(ValueError, match="method must be one of itaclip, fast, sclip"):
        ITACLIPConfig.preset("csa")
    with pytest.raises(ValueError, match="got 'voc21'; voc21 is a data set, to be named as such"):
        ITACLIPConfig.preset("voc21")
    with pytest.raises(ValueError, match=r"dataset must be one of voc21, context60, .*, got 'voc'"):
        ITACLIPConfig.preset("itaclip", dataset="voc")
    with pytest.raises(ValueError, match="ITACLIPConfig has no field extra"):
        ITACLIPConfig.from_dict({"extra": 1})
    with pytest.raises(ValueError, match="AttentionConfig has no field extra"):
        ITACLIPConfig.from_dict({"attention": {"extra": 1}})
