# SPDX-License-Identifier: Apache-2.0
"""``capture`` around calls of whole pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffeat import MapOptions, Storage, capture, list_activations

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
EXTRA: dict[str, dict[str, Any]] = {
    "PixArt": {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16},
    "Hunyuan": {"use_resolution_binning": False},
    "SD3": {"max_sequence_length": 16},
    "Flux": {"max_sequence_length": 16},
    "Sana": {"use_resolution_binning": False, "max_sequence_length": 16, "clean_caption": False},
    "Z-Image": {"max_sequence_length": 16},
}


def generate(pipeline: Any, family: str, steps: int = 2, guidance: float = 4.0, **more: Any) -> torch.Tensor:
    side = 128 if family == "Hunyuan" else 64
    options = {"height": side, "width": side, "output_type": "latent", **EXTRA.get(family, {}), **more}
    return pipeline(
        "a cat",
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(0),
        **options,
    ).images


@pytest.mark.parametrize("family", ["SD1.5", "SDXL", "PixArt", "Hunyuan", "SD3", "Flux"])
def test_around_a_pipeline_of_each_family(pipelines, family):
    pipeline = pipelines(family)
    names = [str(a.name) for a in list_activations(pipeline, size=None)]
    plain = generate(pipeline, family)
    with capture(pipeline, names, calls="all") as found:
        captured = generate(pipeline, family)
    assert torch.equal(torch.as_tensor(plain), torch.as_tensor(captured))
    count = len(pipeline.scheduler.timesteps)
    assert found.calls == tuple(range(count))
    assert list(found) == names
    # one call for both halves of the guidance, except in Flux, whose guidance is distilled
    batch = 1 if family == "Flux" else 2
    assert {len(tensor) for tensor in found.values()} == {batch}
    if family != "Flux":
        assert list(found.timesteps.values()) == [float(t) for t in pipeline.scheduler.timesteps]
    else:
        steps = [pytest.approx(float(t) / 1000) for t in pipeline.scheduler.timesteps]
        assert list(found.timesteps.values()) == steps


def test_which_calls_are_kept(pipelines):
    pipeline, name = pipelines("SD1.5"), "mid-repeat0-res-out"
    with capture(pipeline, name, calls="all") as every:
        generate(pipeline, "SD1.5", steps=3)
    count = len(every.calls)
    assert count == len(pipeline.scheduler.timesteps) > 3
    for keep, calls in (("first", (0,)), ("last", (count - 1,)), ((1, 2), (1, 2))):
        with capture(pipeline, name, calls=keep) as some:
            generate(pipeline, "SD1.5", steps=3)
        assert some.calls == calls
        assert all(torch.equal(some.at(i)[name], every.at(i)[name]) for i in calls)
        assert torch.equal(some[name], every.at(calls[-1])[name])
        assert set(some.timesteps) == set(calls)
    with pytest.raises(LookupError, match=r"one of the kept \(1, 2\), got 0"):
        some.at(0)


def test_unconditional_images_come_first(pipelines):
    pipeline, name = pipelines("SD1.5"), "up-level1-repeat0-vit-block0-cross-q"
    with capture(pipeline, name, calls="first") as guided:
        generate(pipeline, "SD1.5", negative_prompt="a dog")
    with capture(pipeline, name, calls="first") as plain:
        generate(pipeline, "SD1.5", guidance=1.0)
    torch.testing.assert_close(guided[name][1:], plain[name], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(guided[name][:1], plain[name], rtol=1e-4, atol=1e-5)


def test_leaving_in_the_middle_of_a_run(pipelines):
    pipeline, name = pipelines("SD1.5"), "mid-repeat0-res-out"
    reached = []
    with capture(pipeline, name, stop_after=1) as found:
        generate(pipeline, "SD1.5", steps=5)
        reached.append("end")
    assert reached == []
    assert found.calls == (1,)
    # the pipeline can be used as if nothing had happened
    assert torch.equal(generate(pipeline, "SD1.5"), generate(pipeline, "SD1.5"))


def test_maps_are_reduced_on_the_way(pipelines):
    pipeline, name = pipelines("SD1.5"), "up-level1-repeat0-vit-block0-cross-map"
    with capture(pipeline, name) as whole:
        generate(pipeline, "SD1.5")
    with capture(pipeline, name, maps=MapOptions(heads="mean", tokens=(1, 2), chunk=3)) as reduced:
        generate(pipeline, "SD1.5")
    assert whole[name].shape == (2, 2, 4, 4, 16)
    assert reduced[name].shape == (2, 1, 4, 4, 2)
    torch.testing.assert_close(reduced[name], whole[name].mean(1, keepdim=True)[..., 1:3])


def test_storage_dtype(pipelines):
    pipeline, name = pipelines("SD1.5"), "mid-repeat0-res-out"
    with capture(pipeline, name, storage=Storage(dtype=torch.float16)) as found:
        generate(pipeline, "SD1.5")
    assert found[name].dtype == torch.float16


def test_any_module_by_its_path(pipelines):
    pipeline = pipelines("SD1.5")
    with capture(pipeline, ["time_embedding.linear_1", "unet-in"]) as found:
        generate(pipeline, "SD1.5")
    assert list(found) == ["unet-in", "time_embedding.linear_1"]
    assert found["time_embedding.linear_1"].shape == (2, 32)


def test_bad_arguments(pipelines):
    pipeline = pipelines("SD1.5")
    with (
        pytest.raises(ValueError, match="calls must be 'last', 'first', 'all' or indices, got 'middle'"),
        capture(pipeline, "unet-in", calls="middle"),
    ):
        pass
    with (
        pytest.raises(TypeError, match="a unet or a transformer is needed, got str"),
        capture("model", "unet-in"),
    ):
        pass
