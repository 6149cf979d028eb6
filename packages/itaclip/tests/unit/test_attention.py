# SPDX-License-Identifier: Apache-2.0
import sys
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import torch
from itaclip import ITACLIP, AttentionConfig, ITACLIPConfig
from itaclip.attention import attention_names, build_attention, registry
from itaclip.attention.mixed import MixedAttention, ValueAttention
from itaclip.attention.proxy import ProxyAttention
from itaclip.encoder import AttentionStrategy

PLAIN = ITACLIPConfig(branches=("identity",), resize_short=0, crop=32, stride=16, pamr_steps=0, closing=False)


@dataclass(frozen=True, kw_only=True)
class Squared(AttentionStrategy):
    """The weights of plain CLIP to a power, as another package would write it."""

    power: float = 2.0

    def features(self, last, encoder):
        q, k, v = last.qkv
        weights = (q @ k.mT * last.scale).softmax(dim=-1) ** self.power
        y = weights @ v / weights.sum(dim=-1, keepdim=True)
        block = encoder.tower.num_blocks - 1
        tokens = encoder.tower.to_text_space(encoder.tower.project(block, y, last.x))
        return encoder.to_maps(tokens, last.grid)


@pytest.fixture
def other_package(monkeypatch):
    module = ModuleType("other_package")
    module.Squared, module.number = Squared, 3
    monkeypatch.setitem(sys.modules, "other_package", module)
    entries = [
        EntryPoint("squared", "other_package:Squared", registry.GROUP),
        EntryPoint("broken", "other_package:number", registry.GROUP),
    ]

    def found(*, group, name=None):
        return [entry for entry in entries if group == registry.GROUP and name in (None, entry.name)]

    monkeypatch.setattr(registry, "entry_points", found)


def test_a_strategy_of_another_package_segments(tools, classes, other_package):
    assert attention_names()[-1] == "squared"
    image, text = tools.image(3, 40, 48), tools.text(len(classes.names))
    found = {}
    for power in (1.0, 3.0):
        attention = AttentionConfig(strategy="squared", options={"power": power})
        config = ITACLIPConfig.from_dict(replace(PLAIN, attention=attention).to_dict())
        assert config.attention == attention
        segmenter = ITACLIP(tools.native(), None, config).set_text_features(text, classes)
        found[power] = segmenter.scores(image)
    qk = AttentionConfig(pairs=("qk",), mid_layers=(), residual=False)
    plain = ITACLIP(tools.native(), None, replace(PLAIN, attention=qk)).set_text_features(text, classes)
    torch.testing.assert_close(found[1.0], plain.scores(image), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[3.0], found[1.0], atol=1e-4)


def test_wrong_strategies_and_options_are_one_sentence(other_package):
    for config, message in (
        (
            AttentionConfig(strategy="squard"),
            "must be one of mixed, value, .*squared, got 'squard'",
        ),
        (AttentionConfig(strategy="broken"), "other_package:number, .* is no AttentionStrategy"),
        (AttentionConfig(strategy="squared", options={"p": 1}), "squared has the options power, got p"),
        (AttentionConfig(options={"p": 1}), "mixed takes no options but the fields of the attention, got p"),
        (AttentionConfig(strategy="value", options={"p": 1}), "value takes no options"),
        (AttentionConfig(strategy="gem", options={"blocks": 0}), "blocks must be at least 1"),
        (AttentionConfig(strategy="scclip", options={"anomalies": 1}), "anomalies lie in"),
        (AttentionConfig(strategy="proxyclip", options={"gamma": 0}), "gamma must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            build_attention(config)


def test_names_of_this_package_are_its_classes():
    assert isinstance(build_attention(AttentionConfig()), MixedAttention)
    assert isinstance(build_attention(AttentionConfig(strategy="value")), ValueAttention)
    options = {"beta": 1.5, "tower": "./dino"}
    found = build_attention(AttentionConfig(strategy="proxyclip", options=options))
    assert found == ProxyAttention(beta=1.5, tower="./dino")


def test_more_blocks_than_the_tower_has_are_refused(tools):
    config = replace(PLAIN, attention=AttentionConfig(strategy="gem", options={"blocks": 9}))
    with pytest.raises(ValueError, match="at most the 4 of the tower"):
        ITACLIP(tools.native(), None, config)


@pytest.mark.parametrize(("strategy", "folder"), [("proxyclip", "dino"), ("trident", "none")])
def test_a_tower_that_is_not_there_is_one_sentence(tools, strategy, folder, tmp_path):
    tmp_path.joinpath("dino").mkdir()
    options = {"tower": str(tmp_path / folder)}
    config = replace(PLAIN, attention=AttentionConfig(strategy=strategy, options=options))
    with pytest.raises(FileNotFoundError, match="cannot be loaded: it must be a folder, hub id or name"):
        ITACLIP(tools.native(), None, config)
