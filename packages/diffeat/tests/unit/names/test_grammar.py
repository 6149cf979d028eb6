# SPDX-License-Identifier: Apache-2.0
"""Names: spelling, reading, order."""

import pytest
from diffeat import ActivationName

NAMES = [
    "unet-in",
    "unet-after-conv-in",
    "down-level0-repeat0-res-increment",
    "down-level0-repeat0-res-out",
    "down-level0-repeat0-vit-block0-self-q",
    "down-level0-repeat0-vit-block0-self-map",
    "down-level0-repeat0-vit-block0-cross-q",
    "down-level0-repeat0-vit-block0-cross-map",
    "down-level0-repeat0-vit-block0-ffn-inner",
    "down-level0-repeat0-vit-block0-out",
    "down-level0-repeat0-vit-block1-self-q",
    "down-level0-repeat0-vit-out",
    "down-level0-repeat1-res-increment",
    "down-level0-downsampler-out",
    "mid-repeat0-res-out",
    "mid-vit-block0-self-q",
    "mid-vit-block10-self-q",
    "mid-vit-out",
    "mid-repeat1-res-increment",
    "up-level0-repeat0-res-increment",
    "up-level0-upsampler-out",
    "up-level1-repeat0-res-increment",
    "unet-out",
    "vae-out",
    "up-cross-attn",
]


@pytest.mark.parametrize("text", [*NAMES, "vit-block3-q", "vit-block12-self2-map", "conv_in", "a.b.0.c"])
def test_text_round_trip(text: str) -> None:
    assert str(ActivationName.parse(text)) == text


def test_sorting_follows_execution() -> None:
    names = [ActivationName.parse(text) for text in NAMES]
    assert [str(name) for name in sorted(set(names))] == NAMES


def test_fields() -> None:
    name = ActivationName.parse("up-level1-repeat2-vit-block7-cross-map")
    assert (name.part, name.stage, name.level, name.repeat, name.block) == ("vit", "up", 1, 2, 7)
    assert name.is_map
    assert not name.is_text
    assert name.family == "cross-attention"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "up-level0",
        "up-repeat0-res-out",
        "mid-level0-repeat0-res-out",
        "up-level0-repeat0-res-in",
        "vit-out",
        "vit-block0-nothing",
        "up-level0-vit-out",
        "up-level-1-repeat0-res-out",
        "a..b",
        "UP-level0-repeat0-res-out",
    ],
)
def test_bad_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an activation name reads like"):
        ActivationName.parse(text)


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("unet-out", "ends"),
        ("mid-repeat0-res-increment", "res-internal"),
        ("mid-repeat0-res-out", "inter-module"),
        ("mid-vit-out", "inter-module"),
        ("mid-vit-block0-out", "vit-block"),
        ("mid-vit-block0-self-v", "self-attention"),
        ("vit-block0-q", "self-attention"),
        ("mid-vit-block0-ffn-inner", "feed-forward"),
        ("up-level0-upsampler-out", "inter-module"),
        ("conv_in", "module"),
    ],
)
def test_families(text: str, family: str) -> None:
    assert ActivationName.parse(text).family == family
