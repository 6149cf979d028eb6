# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from pixelsmith.io.vae import Tiling
from pixelsmith.job.spec import JobSpec, check_spec


def test_a_description_comes_back_as_it_was(dummies, tmp_path):
    for spec in (
        dummies.spec(),
        dummies.spec(sizes=((48, 56), (96, 112)), sliders=(2, ((0.2, 0.6), (0.1, 0.4))), tiling=None),
        dummies.spec(source=tmp_path / "a.png", source_digest="00", wrap="both", canvas="float16"),
        dummies.spec(sizes=()),
    ):
        plain = json.loads(json.dumps(spec.to_dict()))
        assert JobSpec.from_dict(plain) == spec
    with pytest.raises(ValueError, match="unknown or missing: banana, canvas"):
        JobSpec.from_dict({**{name: plain[name] for name in plain if name != "canvas"}, "banana": 1})


def test_identity_is_what_decides_the_bytes(dummies, tmp_path):
    model = dummies.Dummy()
    first = dummies.spec(source=tmp_path / "a.png", source_digest="00")
    same = dummies.spec(source=tmp_path / "b.png", source_digest="00", batch_size=4, max_pixels=5)
    assert first.identity(model) == same.identity(model)
    others = [
        dummies.spec(source=tmp_path / "a.png", source_digest="01"),
        dummies.spec(source=tmp_path / "a.png", source_digest="00", seed=1),
        dummies.spec(source=tmp_path / "a.png", source_digest="00", sliders=(1,)),
        dummies.spec(source=tmp_path / "a.png", source_digest="00", tiling=Tiling(tile=11)),
        dummies.spec(source=tmp_path / "a.png", source_digest="00", canvas="float16"),
    ]
    identities = [json.dumps(spec.identity(model)) for spec in (first, *others)]
    identities.append(json.dumps(first.identity(dummies.Dummy(prompt="a ship"))))
    assert len(set(identities)) == len(identities)


def test_stages_have_sliders_and_scales_of_their_own(dummies):
    spec = dummies.spec(sizes=((48, 56), (96, 112)), sliders=(2, 0.5))
    assert [spec.stage_config(number).slider for number in (0, 1)] == [2, 0.5]
    assert [spec.scale(number) for number in (0, 1)] == [2, 4]
    assert dummies.spec(slider=3).stage_config(0).slider == 3
    assert spec.size == (96, 112)
    assert dummies.spec(sizes=()).size == (24, 28)


def test_wrong_jobs_are_named(dummies, tmp_path):
    with pytest.raises(ValueError, match="one for each of the 1 stages, got 2"):
        dummies.spec(sliders=(1, 2))
    with pytest.raises(ValueError, match="slider must be a fraction"):
        dummies.spec(sliders=(-1,))
    with pytest.raises(ValueError, match="canvas must be 'float32' or 'float16', got 'int8'"):
        dummies.spec(canvas="int8")
    with pytest.raises(ValueError, match="source and source_digest must be given together"):
        dummies.spec(source=tmp_path)


def test_everything_is_checked_before_the_first_call(dummies):
    model = dummies.Dummy()
    steps = check_spec(model, dummies.spec(sizes=((48, 56), (96, 112)), sliders=(1, 2)))
    assert [plan.guided for plan in steps] == [1, 2]
    cases = [
        (dummies.spec(sizes=((47, 56),)), model, "multiples of 2 pixels, got height 47 and width 56"),
        (dummies.spec(source_size=(25, 28)), model, "multiples of 2 pixels, got height 25 and width 28"),
        (dummies.spec(sizes=((2, 56),)), model, "canvas must be at least 2 latents"),
        (dummies.spec(slider=9), model, "must not exceed the 3 steps, got 9"),
        (dummies.spec(), dummies.Dummy(num_steps=13), "Unlucky has no closed form"),
    ]
    for spec, checked, said in cases:
        with pytest.raises(ValueError, match=said):
            check_spec(checked, spec)
    model.vae = None
    with pytest.raises(TypeError, match="has no vae"):
        check_spec(model, dummies.spec())
    other = dummies.Dummy()
    other.channels = 4
    with pytest.raises(ValueError, match=r"must make 4 channels per 2 x 2 pixels .*, makes 3 per 2 x 2"):
        check_spec(other, dummies.spec())
    assert model.calls == other.calls == []
