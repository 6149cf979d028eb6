# SPDX-License-Identifier: Apache-2.0
"""Features of images: what they depend on, and what they do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffeat import (
    ActivationName,
    ExtractionOptions,
    FeatureExtractor,
    Features,
    MapOptions,
    Storage,
    list_activations,
)
from diffeat.hooks.recorder import Recorder, Sink
from diffeat.names.listing import taps_of
from diffeat.names.probe import dry_inputs
from diffeat.names.taps import Tap
from diffeat.schedule import noise_level
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, flop_registry

NAME = "up-level1-repeat0-res-out"
FAMILIES = ["SD1.5", "SDXL", "PixArt", "Hunyuan", "SD3", "Flux", "Sana", "Lumina2", "Z-Image", "Wan"]
FEW = ["down-level0-repeat0-vit-block0-self-q", NAME, "up-level1-repeat0-vit-block0-cross-map"]


def equal(first: Features, second: Features) -> bool:
    assert list(first) == list(second)
    return all(torch.equal(first[name], second[name]) for name in first)


def close(first: Features, second: Features, tolerance: float = 1e-5) -> bool:
    assert list(first) == list(second)
    return all(torch.allclose(first[name], second[name], rtol=tolerance, atol=tolerance) for name in first)


@pytest.fixture(scope="module")
def sd15(pipelines):
    return FeatureExtractor(pipelines("SD1.5"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_listing_is_what_a_run_gives(pipelines, images, family):
    """Names, order, shapes and bytes of the plan on the meta device against a real run."""
    extractor = FeatureExtractor(pipelines(family))
    listed = list_activations(extractor.pipeline, size=64, bytes_per_value=4)
    features = extractor(images[:1], [a.name for a in listed], ExtractionOptions(size=64))
    assert list(features) == [str(a.name) for a in listed]
    for activation in listed:
        tensor = features[activation.name]
        if activation.name.kind == "cross-map":
            continue  # the plan counts on as many text tokens as the real models have
        assert activation.shape is not None
        assert tuple(tensor.shape) == (1, *activation.shape)
        assert activation.bytes == tensor[0].numel() * 4


@pytest.mark.skipif(
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu not in flop_registry,
    reason="this torch counts no attention on processors (2.10)",
)
@pytest.mark.parametrize("family", ["SD1.5", "PixArt", "SD3"])
def test_the_plan_counts_the_work_of_a_real_run(pipelines, family):
    model = FeatureExtractor(pipelines(family)).model
    shares = {a.name: a.flop_share for a in list_activations(model, size=128)}
    taps = [tap for tap in taps_of(model) if tap.is_listed and tap.port != "map"]
    inputs, geometry = dry_inputs(model, 16, 16)
    real = {
        key: torch.zeros(value.shape) if isinstance(value, torch.Tensor) else value
        for key, value in inputs.items()
    }
    done: dict[ActivationName, int] = {}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:

        class Done(Sink):
            def take(self, tap: Tap, tensor: torch.Tensor, call: int) -> None:
                done[tap.name] = counter.get_total_flops()

        with Recorder(model, taps, Done(), geometry=geometry):
            model(**real)
        total = counter.get_total_flops()
    assert {name: work / total for name, work in done.items()} == {tap.name: shares[tap.name] for tap in taps}


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_and_orders_do_not_matter(pipelines, images, family):
    extractor = FeatureExtractor(pipelines(family))
    names = [a.name for a in extractor.list_activations(size=None)][::-3]
    if family == "Lumina2":  # maps of a batch need texts of one length
        names = [name for name in names if not name.is_map]
    together = extractor(images, names, ExtractionOptions(size=64, prompt=("a cat", "a long walk")))
    forwards = extractor(
        images, names[::-1], ExtractionOptions(size=64, prompt=("a cat", "a long walk")), batch_size=1
    )
    assert close(together, forwards)
    alone = extractor(images[1], names, ExtractionOptions(size=64, prompt="a long walk"))
    for name in together:
        torch.testing.assert_close(alone[name], together[name][1:], rtol=1e-5, atol=1e-5)
    every = [str(a.name) for a in extractor.list_activations(size=None)]
    assert list(together) == [name for name in every if name in together]


def test_seeds(sd15, images):
    first = sd15(images, FEW, ExtractionOptions(seed=3))
    assert equal(first, sd15(images, FEW, ExtractionOptions(seed=3)))
    assert not close(first, sd15(images, FEW, ExtractionOptions(seed=4)))
    # the random state of the user is not touched
    state = torch.get_rng_state()
    sd15(images, NAME, ExtractionOptions(posterior="sample"))
    assert torch.equal(state, torch.get_rng_state())


def test_noises_are_averaged(sd15, images):
    mean = sd15(images, FEW, ExtractionOptions(num_noises=3))
    assert equal(mean, sd15(images, FEW, ExtractionOptions(num_noises=3)))
    assert not close(mean, sd15(images, FEW))
    drifts = [sd15(images, NAME, ExtractionOptions(num_noises=n))[NAME] for n in (1, 6, 12)]
    assert (drifts[2] - drifts[1]).norm() < (drifts[2] - drifts[0]).norm()
    assert mean.meta.options.num_noises == 3


def test_posterior(sd15, images):
    mode = sd15(images, NAME)
    sample = sd15(images, NAME, ExtractionOptions(posterior="sample", seed=1))
    assert equal(sample, sd15(images, NAME, ExtractionOptions(posterior="sample", seed=1)))
    assert not close(mode, sample)
    assert sample.meta.options.posterior == "sample"


def test_several_timesteps(sd15, images):
    both = sd15(images, FEW, ExtractionOptions(timesteps=(50, 261)))
    assert list(both) == [f"{name}@{t}" for t in (50, 261) for name in FEW]
    for t in (50, 261):
        assert equal(both.at(t), sd15(images, FEW, ExtractionOptions(timesteps=(t,))))
    assert [level.timestep for level in both.meta.noise_levels] == [50, 261]
    with pytest.raises(LookupError, match=r"timestep must be one of \[50, 261\], got 7"):
        both.at(7)


def test_without_noise_seeds_do_not_matter(sd15, images):
    assert equal(
        sd15(images, FEW, ExtractionOptions(timesteps=(0,), seed=0)),
        sd15(images, FEW, ExtractionOptions(timesteps=(0,), seed=9)),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_that_are_not_square(pipelines, images, family):
    extractor = FeatureExtractor(pipelines(family))
    size = (48, 80) if extractor.factor == 4 else (96, 160)
    names = [a.name for a in extractor.list_activations(size=None)]
    found = extractor(images[:1], names, ExtractionOptions(size=size))
    cells = 1 if family in {"SD1.5", "SDXL", "Sana"} else 2
    grid = size[0] // extractor.factor // cells, size[1] // extractor.factor // cells
    widest = max((tuple(tensor.shape[2:4]) for tensor in found.values()), key=max)
    assert widest == grid
    assert found.meta.options.size == size
    if cells == 2:
        assert {tuple(tensor.shape[2:4]) for tensor in found.values()} == {grid}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_stays_close(pipelines, fresh, images, family, dtype):
    names = [a.name for a in list_activations(pipelines(family), size=None)]
    exact = FeatureExtractor(pipelines(family))(images, names, ExtractionOptions(size=64))
    half = FeatureExtractor.from_pretrained(fresh(family), dtype=dtype)(
        images, names, ExtractionOptions(size=64)
    )
    assert half.meta.dtype == str(dtype).removeprefix("torch.")
    for name in exact:
        cosine = F.cosine_similarity(half[name].float().flatten(), exact[name].flatten(), dim=0)
        assert cosine >= 0.999, name


def test_storage(sd15, images):
    found = sd15(images, FEW, storage=Storage(dtype=torch.float16))
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    assert close(found.to(dtype=torch.float32), sd15(images, FEW), tolerance=2e-3)
    grown = sd15(images[:1], NAME, storage=Storage(with_grad=True))
    assert grown[NAME].requires_grad


def test_the_model_is_as_it_was(fresh, images):
    pipeline = fresh("SD1.5")
    pipeline.unet.train()
    pipeline.unet.mid_block.eval()
    extractor = FeatureExtractor(pipeline)
    before = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}
    modes = [module.training for module in pipeline.unet.modules()]
    hooks = [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in pipeline.unet.modules()
    ]
    extractor(images, FEW)
    handle = pipeline.unet.mid_block.register_forward_hook(_break)
    with pytest.raises(RuntimeError, match="broken"):
        extractor(images, NAME)
    handle.remove()
    assert [module.training for module in pipeline.unet.modules()] == modes
    assert hooks == [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in pipeline.unet.modules()
    ]
    assert all(torch.equal(before[key], value) for key, value in pipeline.unet.state_dict().items())


def _break(*_: Any) -> None:
    raise RuntimeError("broken")


def test_the_pass_stops_after_the_last_wanted_one(sd15, images):
    ran: list[str] = []
    handles = [
        sd15.model.mid_block.register_forward_hook(lambda *_: ran.append("mid")),
        sd15.model.up_blocks[0].register_forward_hook(lambda *_: ran.append("up")),
    ]
    sd15(images, "mid-repeat1-res-out")
    assert ran == []  # the hook of the middle block itself comes after its last module
    sd15(images, "up-level1-repeat0-res-out")
    assert ran == ["mid", "up"]
    for handle in handles:
        handle.remove()


def test_mean_maps_are_those_of_the_authors(sd15, images):
    """Heads, then layers of one side between 1/4 and 1/2 of the latent, sides side by side as channels."""
    mean = sd15(images, "up-cross-attn", ExtractionOptions(size=128))["up-cross-attn"]
    maps = sd15(images, "up-*-cross-map", ExtractionOptions(size=128))
    sides: dict[int, list[torch.Tensor]] = {}
    for name, value in maps.items():
        if 32 / 4 <= value.shape[2] <= 32 / 2:
            sides.setdefault(value.shape[2], []).append(value.mean(1))
        assert "up-" in name
    assert {side: len(layers) for side, layers in sides.items()} == {8: 3, 16: 3}
    parts = []
    for side, layers in sorted(sides.items()):
        layer_mean = torch.stack(layers).mean(0).permute(0, 3, 1, 2)
        scale = 32 // side
        parts.append(layer_mean.repeat_interleave(scale, 2).repeat_interleave(scale, 3))
    torch.testing.assert_close(mean, torch.cat(parts, dim=1), rtol=1e-6, atol=1e-7)


def test_tokens_and_heads_reach_mean_maps(sd15, images):
    whole = sd15(images, "up-cross-attn", ExtractionOptions(size=128))["up-cross-attn"]
    options = MapOptions(tokens=(1, 2))
    both = sd15(images, ["up-cross-attn", "up-*-cross-map"], ExtractionOptions(size=128, maps=options))
    length = whole.shape[1] // 2
    kept = [1, 2, length + 1, length + 2]
    torch.testing.assert_close(both["up-cross-attn"], whole[:, kept], rtol=1e-6, atol=1e-7)


def test_loading_from_a_folder(sdxl_folder, images):
    extractor = FeatureExtractor.from_pretrained(sdxl_folder, device="cpu", dtype="float32")
    found = extractor(images, "Ours-XL", ExtractionOptions(prompt="a photo of a horse"))
    assert list(found) == [
        "up-level0-repeat0-vit-block5-out",
        "up-level0-repeat0-vit-block7-out",
        "up-level1-repeat0-vit-block0-cross-q",
        "up-level1-repeat0-vit-block0-out",
    ]
    assert found.meta.model == str(sdxl_folder)
    assert found.meta.options.prompt == ("a photo of a horse",) * 2
    assert found.concat().shape == (2, 64, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"timesteps": (1001,)},
            "timestep must lie between 0 and the 1000 training steps of the scheduler, got 1001",
        ),
        ({"timesteps": ()}, "timesteps must be a tuple of at least one timestep"),
        ({"timesteps": 50}, r"such as \(50,\), got 50"),
        ({"num_noises": 0}, "num_noises must be at least 1, got 0"),
        ({"posterior": "mean"}, "posterior must be 'mode' or 'sample', got 'mean'"),
        ({"size": 63}, "size must be a positive multiple of 4 pixels both ways, got 63x63"),
        ({"size": (64, 0)}, "multiple of 4 pixels both ways, got 64x0"),
        ({"prompt": ("a", "b", "c")}, "prompt must be one text or one per image, got 3 for 2 images"),
    ],
)
def test_bad_values(sd15, images, options, message):
    with pytest.raises(ValueError, match=message):
        sd15(images, NAME, ExtractionOptions(**options))


def test_a_batch_holds_at_least_one_image(sd15, images):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        sd15(images, NAME, batch_size=0)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("up-level1-repeat0-resout", LookupError, r"no activation .* did you mean up-level1-repeat0-res-out"),
        ("level1-repeat0", LookupError, "is ambiguous: it is part of 26 names"),
        ("up-level9-*", LookupError, "matches none of the 197 activations"),
        ("Ours-XL", LookupError, "no activation 'up-level0-repeat0-vit-block5-out'"),
        ("Ours-XL-t", ValueError, r"spans SDXL, SD1\.5, Playground v2"),
        ([], ValueError, "names must hold at least one activation, got none"),
    ],
)
def test_bad_names(sd15, images, names, error, message):
    with pytest.raises(error, match=message):
        sd15(images, names)


def test_means_of_maps_that_are_not_there(pipelines, images):
    with pytest.raises(LookupError, match="up-cross-attn has no maps to average"):
        FeatureExtractor(pipelines("PixArt"))(images, "up-cross-attn")


def test_bad_sources(sd15, tmp_path):
    with pytest.raises(NotImplementedError, match="got Linear; run its own pipeline inside capture"):
        FeatureExtractor(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="a unet or a transformer is needed, got int"):
        FeatureExtractor(3)
    with pytest.raises(ValueError, match="dtype must be one of auto, float32, bfloat16, float16, got 'int8'"):
        FeatureExtractor.from_pretrained(sd15.pipeline, dtype="int8")


def test_a_latent_of_the_wrong_size_is_said(sd15, images):
    with pytest.raises(ValueError, match=r"the U-Net takes 5 channels, which 4 latent channels cannot fill"):
        sd15.adapter.pack(_Takes(5), torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2))
    clean = torch.ones(1, 4, 2, 2)
    assert torch.equal(sd15.adapter.pack(_Takes(8), 2 * clean, clean), torch.cat([2 * clean, clean], 1))
    masked = sd15.adapter.pack(_Takes(9), 2 * clean, clean)
    assert torch.equal(masked, torch.cat([2 * clean, 0 * clean[:, :1], clean], 1))


class _Takes:
    def __init__(self, channels: int) -> None:
        self.config = type("Config", (), {"in_channels": channels})()


@pytest.mark.parametrize(
    ("family", "tokens"),
    [
        ("PixArt", 120),
        ("Hunyuan", 256),
        ("SD3", 256),
        ("Flux", 512),
        ("Sana", 300),
        ("Lumina2", 256),
        ("Z-Image", 512),
        ("Wan", 226),
    ],
)
def test_prompts_that_transformers_cannot_take(pipelines, images, family, tokens):
    with pytest.raises(ValueError, match=f"prompt must have at most {tokens} tokens for this model, got"):
        FeatureExtractor(pipelines(family))(
            images, "vit-block0-out", ExtractionOptions(size=64, prompt="cat " * 200)
        )


def test_denoisers_get_the_timestep_in_their_own_units(pipelines, images):
    """Sources: the pipelines; Lumina 2 and Z-Image count from noise at 0 to the image at 1."""
    scale = {"Flux": 1e-3, "Lumina2": -1e-3, "Z-Image": -1e-3}
    for family in FAMILIES:
        extractor, seen = FeatureExtractor(pipelines(family)), []
        hook = extractor.model.register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.append(kwargs.get("timestep", kwargs.get("t"))),
            with_kwargs=True,
        )
        last = str(extractor.list_activations(size=None)[-1].name)
        found = extractor(images[:1], last, ExtractionOptions(size=64, timesteps=(200,)))
        hook.remove()
        wanted = found.meta.noise_levels[0].effective * scale.get(family, 1) + (scale.get(family, 1) < 0)
        assert float(seen[0][0]) == pytest.approx(wanted), family


def test_two_denoisers_and_schedules_of_their_own_are_refused(fresh, images):
    wan = fresh("Wan")
    wan.transformer_2 = wan.transformer
    with pytest.raises(NotImplementedError, match="a denoiser for strong and one for weak noise"):
        FeatureExtractor(wan)(images, "vit-block0-out", ExtractionOptions(size=64))
    sana = fresh("Sana")
    sana.transformer.register_to_config(guidance_embeds=True)
    with pytest.raises(NotImplementedError, match="Sana-Sprint"):
        FeatureExtractor(sana)(images, "vit-block0-out", ExtractionOptions(size=64))


def test_effective_timesteps(pipelines):
    """Spec of the authors' code: t = 50 means 51, 50 or 49, as the scheduler spaces its steps."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    schedulers = {
        51: (pipelines("SD1.5").scheduler, 0.974948, 0.222432),
        50: (DDIMScheduler(**betas, steps_offset=1, timestep_spacing="leading"), 0.975488, 0.220053),
        49: (EulerDiscreteScheduler(**betas, timestep_spacing="linspace"), 0.976025, 0.217657),
    }
    for effective, (scheduler, signal, noise) in schedulers.items():
        level = noise_level(scheduler, 50)
        assert level.effective == effective
        assert level.signal == pytest.approx(signal, abs=1e-6)
        assert level.noise == pytest.approx(noise, abs=1e-6)
    for scheduler in (EulerDiscreteScheduler, DDIMScheduler):
        assert noise_level(scheduler(**betas, timestep_spacing="trailing"), 50).effective == 49
    leading = EulerDiscreteScheduler(**betas, steps_offset=1, timestep_spacing="leading")
    assert noise_level(leading, 50).effective == 50


def test_images_are_decoded_as_they_are_needed(sd15, images):
    events = []

    class Photos(list):
        def __iter__(self):
            for index in range(3):
                events.append(f"read {index}")
                yield images[index % 2]

    sd15(
        Photos([0, 1, 2]),
        "unet-in",
        ExtractionOptions(size=64),
        batch_size=1,
        on_batch=lambda done, _: events.append(f"done {done}"),
    )
    assert events == ["read 0", "done 1", "read 1", "done 2", "read 2", "done 3"]


def test_aspect_ratios_are_kept_where_asked(sd15, images):
    tall = F.interpolate(images, (200, 100))
    options = ExtractionOptions(size=64, keep_aspect=True)
    found = sd15(tall, "unet-in", options)
    # 64 x 64 pixels at 2 to 1, in steps of 4 pixels
    assert found.meta.options.size == (92, 44)
    assert found["unet-in"].shape[2:] == (23, 11)
    torch.testing.assert_close(
        found["unet-in"], sd15(tall, "unet-in", ExtractionOptions(size=(92, 44)))["unet-in"]
    )
    for batch_size in (1, 2):
        with pytest.raises(ValueError, match="images of one call must have one size, got 64x64, 92x44"):
            sd15([tall[0], images[0]], "unet-in", options, batch_size=batch_size)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise": "much"}, "noise must be 'random', 'none' or 'inverted', got 'much'"),
        ({"noise": "none", "num_noises": 2}, "num_noises must be 1 unless noise is 'random', got 2"),
        ({"inversion_steps": 0}, "inversion_steps must be at least 1, got 0"),
    ],
)
def test_bad_noises(values, message):
    with pytest.raises(ValueError, match=message):
        ExtractionOptions(**values)
