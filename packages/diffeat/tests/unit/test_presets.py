# SPDX-License-Identifier: Apache-2.0
"""The paper's selections and pools against the listings they select from."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from diffeat import Activation, ActivationName, list_activations, presets
from diffeat.names import matching

CONFIGS = json.loads((Path(__file__).parent / "names" / "configs.json").read_text())
MODELS = {"SD1.5": "SD1.5", "SDXL": "SDXL", "Playground v2": "SDXL"}


@cache
def listing(model: str) -> dict[ActivationName, Activation]:
    return {a.name: a for a in list_activations(CONFIGS[MODELS[model]])}


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_are_subsets_with_their_channels(name: str) -> None:
    for part in presets.preset(name).parts:
        names = [ActivationName.parse(text) for text in part.names]
        in_model = [each for each in names if each.part != "attn"]
        assert matching(listing(part.model), [str(each) for each in in_model]) == in_model
        channels = sum((listing(part.model)[each].shape or (0,))[0] for each in in_model)
        channels += 2 * 77 * (len(names) - len(in_model))
        assert channels == part.channels


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("Legacy-v1.5", 3520),
        ("Legacy-XL", 2240),
        ("Ours-v1.5", 3520),
        ("Ours-XL", 3840),
        ("Ours-XL-t", 8154),
        ("Ours-XL-t-scenes", 7040),
        ("Small-v1.5", 1600),
        ("VPD", 3200),
    ],
)
def test_channel_totals(name: str, channels: int) -> None:
    assert presets.preset(name.upper()).channels == channels


def test_pools() -> None:
    xl = matching(listing("SDXL"), presets.POOLS["SDXL"].names)
    assert Counter(name.level for name in xl) == {0: 43, 1: 20}
    assert len(matching(listing("SD1.5"), presets.POOLS["SD1.5"].names)) == 33


def test_candidates_before_filtering() -> None:
    found = matching(listing("SDXL"), presets.CANDIDATES_XL)
    assert Counter(name.stage for name in found) == {"up": 146, "down": 98, "mid": 35}


def test_rules_reproduce_the_first_level_of_the_pool() -> None:
    candidates = matching(listing("SDXL"), presets.CANDIDATES_XL)
    clean = presets.asymmetric_noise(candidates, clean=2 / 3)
    kept = presets.locality(presets.granularity(presets.smooth(clean)))
    pool = set(matching(listing("SDXL"), presets.POOLS["SDXL"].names))
    # the pool keeps two exceptions at the end of the clean region and drops the upsampler there
    assert pool - set(kept) == {n for n in pool if n.kind == "self-k"}
    assert {str(n) for n in set(kept) - pool} == {"up-level1-upsampler-out"}


def test_locality_keeps_the_late_region() -> None:
    names = [ActivationName.parse(f"up-level{level}-repeat0-vit-block0-self-k") for level in (1, 3)]
    assert presets.locality(names, keep=names[1:]) == names[1:]


def test_unknown_presets_and_parts() -> None:
    with pytest.raises(LookupError, match=r"presets are Legacy-v1\.5"):
        presets.preset("best")
    with pytest.raises(ValueError, match=r"spans SDXL, SD1\.5, Playground v2"):
        _ = presets.preset("Ours-XL-t").names
    with pytest.raises(LookupError, match=r"has parts for SDXL, got 'SD1\.5'"):
        presets.preset("Ours-XL").part("SD1.5")
