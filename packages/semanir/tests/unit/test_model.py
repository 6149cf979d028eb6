# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels import KNNDictionary, knn_dictionary
from semanir import SemanIR, SemanIRConfig
from semanir.functional import enlarge_bicubic, pad_to_multiple, relative_coordinates
from semanir.modules import blocks
from semanir.modules.attention import ContinuousPositionBias
from torch import nn

# published parameter counts, in millions (SemanIR, arXiv 2405.20008)
PUBLISHED = {
    ("sr-small", 2): 11.87,
    ("sr-small", 3): 12.05,
    ("sr-small", 4): 12.02,
    ("sr-base", 2): 19.90,
    ("sr-base", 3): 20.08,
    ("sr-base", 4): 20.04,
}


def small(**changes: object) -> SemanIRConfig:
    """Return a network of a few thousand weights."""
    defaults: dict[str, object] = {
        "embed_dims": (8, 16),
        "num_heads": (1, 2),
        "depths": (2, 1, 1, 2),
        "conv_blocks": (),
        "window_size": 4,
        "k": 6,
        "patch_unshuffle": 1,
    }
    return SemanIRConfig.preset("tiny", **{**defaults, **changes})


def column(**changes: object) -> SemanIRConfig:
    defaults: dict[str, object] = {
        "embed_dims": (8,),
        "num_heads": (2,),
        "depths": (2, 2),
        "window_size": 4,
        "k": 6,
    }
    return SemanIRConfig.preset("sr-small", **{**defaults, **changes})


def build(config: SemanIRConfig, seed: int = 0) -> SemanIR:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SemanIR(config).eval()


def count(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize(("name", "upscale"), PUBLISHED)
def test_columnar_parameter_counts_are_the_published_ones(name, upscale):
    with torch.device("meta"):
        model = SemanIR(SemanIRConfig.preset(name, upscale=upscale))
    assert count(model) == pytest.approx(PUBLISHED[name, upscale], abs=0.005)


def test_unet_base_parameter_count():
    with torch.device("meta"):
        model = SemanIR(SemanIRConfig.preset("base"))
    assert count(model) == pytest.approx(25.82, rel=0.01)


def test_tiny_fits_its_size_limit():
    with torch.device("meta"):
        model = SemanIR(SemanIRConfig.preset("tiny"))
    assert 2 * count(model) < 2.5  # MB in fp16


@pytest.mark.parametrize("height", [1, 7, 33])
@pytest.mark.parametrize("width", [1, 31, 64])
def test_any_size(height, width):
    x = torch.rand(1, 3, height, width)
    assert build(small())(x).shape == x.shape
    assert build(column(upscale=3))(x).shape == (1, 3, 3 * height, 3 * width)


@pytest.mark.parametrize(
    "changes",
    [
        {"shift": "layer"},
        {"shift": "none"},
        {"similarity": "cosine", "force_self": False},
        {"similarity": "l2"},
        {"logits": "cosine", "position_bias": "mlp"},
        {"position_bias": "none"},
        {"norm": "post"},
        {"patch_unshuffle": 2, "conv_blocks": (1, 0, 2, 1)},
        {"resampling": "conv"},
        {"in_channels": 1, "out_channels": 1, "mean": ()},
        {"in_channels": 4, "out_channels": 3, "mean": ()},
    ],
    ids=str,
)
def test_every_option_trains(changes):
    model = build(small(**changes)).train()
    x = torch.rand(2, model.config.in_channels, 9, 14)
    y = model(x)
    assert y.shape == (2, model.config.out_channels, 9, 14)
    y.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect", "nearest+conv"])
@pytest.mark.parametrize("upscale", [1, 2, 4])
def test_every_tail(upsampler, upscale):
    y = build(column(upsampler=upsampler, upscale=upscale))(torch.rand(1, 3, 5, 6))
    assert y.shape == (1, 3, 5 * upscale, 6 * upscale)


def test_a_tail_that_cannot_reach_the_scale_is_refused():
    with pytest.raises(ValueError, match="upscale=5 is not supported"):
        SemanIR(column(upscale=5))
    with pytest.raises(ValueError, match="upscale=3 is not supported"):
        SemanIR(column(upscale=3, upsampler="nearest+conv"))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8)])
def test_wrong_input_is_refused(shape):
    with pytest.raises(ValueError, match="x must be"):
        build(small())(torch.rand(shape))


def test_zero_tail_returns_the_input():
    model = build(small())
    nn.init.zeros_(model.tail.weight)
    nn.init.zeros_(model.tail.bias)
    x = torch.rand(2, 3, 13, 22)
    torch.testing.assert_close(model(x), x, rtol=0, atol=1e-6)


def recorded_dictionaries(monkeypatch: pytest.MonkeyPatch) -> tuple[list[KNNDictionary], list[KNNDictionary]]:
    """Return two lists that fill with the dictionaries built and with those that the layers were given."""
    built: list[KNNDictionary] = []
    used: list[KNNDictionary] = []

    def build_and_note(*args: object, **kwargs: object) -> KNNDictionary:
        built.append(knn_dictionary(*args, **kwargs))
        return built[-1]

    forward = blocks.Layer.forward

    def forward_and_note(self, x, dictionary, **kwargs):
        used.append(dictionary)
        return forward(self, x, dictionary, **kwargs)

    monkeypatch.setattr(blocks, "knn_dictionary", build_and_note)
    monkeypatch.setattr(blocks.Layer, "forward", forward_and_note)
    return built, used


def test_a_stage_builds_one_dictionary_for_all_its_layers(monkeypatch):
    built, used = recorded_dictionaries(monkeypatch)
    build(column(depths=(3, 3)))(torch.rand(1, 3, 8, 8))
    assert len(built) == 2
    assert [id(d) for d in used] == [id(built[0])] * 3 + [id(built[1])] * 3


def test_layer_shift_builds_two_per_stage(monkeypatch):
    built, used = recorded_dictionaries(monkeypatch)
    build(column(depths=(3, 3), shift="layer"))(torch.rand(1, 3, 8, 8))
    assert len(built) == 4
    assert [used.index(d) for d in used] == [0, 1, 0, 3, 4, 3]


def test_no_gradient_through_the_selection():
    stage = build(small()).stages[0]
    x = torch.rand(1, 8, 8, 8, requires_grad=True)
    assert not stage.build_dictionary(x, 0, 4).index.requires_grad


def test_k_at_call_time_changes_the_result_until_the_window_is_full():
    model, x = build(small()), torch.rand(1, 3, 16, 16)
    assert not torch.equal(model(x, k=2), model(x, k=16))
    assert torch.equal(model(x, k=16), model(x, k=99))
    assert torch.equal(model(x), model(x, k=6))


@pytest.mark.parametrize("config", [small(), column(), small(logits="cosine", position_bias="mlp")], ids=str)
def test_backends_agree(config):
    model = build(config).double()
    x = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(model(x, backend="sdpa"), model(x, backend="reference"), rtol=0, atol=1e-11)


def test_save_and_load_keep_every_bit(tmp_path):
    model = build(small())
    model.save_pretrained(tmp_path)
    loaded = SemanIR.from_pretrained(tmp_path, device="cpu")
    x = torch.rand(1, 3, 11, 9)
    assert loaded.config == model.config
    assert torch.equal(loaded(x), model(x))


def test_bf16_runs():
    y = build(small()).bfloat16()(torch.rand(1, 3, 16, 16).bfloat16())
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()


def test_constant_image_gives_finite_repeatable_output():
    model, x = build(small()), torch.full((1, 3, 16, 16), 0.5)
    assert model(x).isfinite().all()
    assert torch.equal(model(x), model(x))


def test_a_unet_enlarges_first_and_then_works_as_without():
    model, plain = build(small(upscale=2)), build(small())
    plain.load_state_dict(model.state_dict())  # the same weights fit
    x = torch.rand(1, 3, 11, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        y = model(x)
        padded = pad_to_multiple(x - model.mean, model.config.size_multiple)
        expected = plain(enlarge_bicubic(padded, 2) + model.mean)
    assert y.shape == (1, 3, 22, 12)
    torch.testing.assert_close(y, expected[..., :22, :12])


def test_an_untrained_degradation_embedding_changes_no_bit():
    model, plain = build(small(degradation_dim=4)), build(small(), seed=1)
    shared = {key: value for key, value in model.state_dict().items() if not key.startswith("degradation.")}
    plain.load_state_dict(shared)
    x = torch.rand(2, 3, 17, 9, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(x), plain(x))
    assert not [key for key in plain.state_dict() if "degradation" in key]


def test_each_image_gets_the_embedding_of_its_own_degradation():
    model = build(small(degradation_dim=4))
    for parameter in model.degradation.heads.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        guesses = model.degradation(model.conv_first(x))
        assert [guess.shape[1:] for guess in guesses] == [(16, 1, 1), (32, 1, 1), (16, 1, 1), (16, 1, 1)]
        assert not torch.equal(guesses[0][0], guesses[0][1])
        torch.testing.assert_close(model(x)[1:], model(x[1:]))
        assert not torch.equal(model(x), build(small())(x))


def test_the_position_bias_follows_from_the_offset_and_lies_in_rows_of_keys():
    torch.manual_seed(0)
    M, bias = 5, ContinuousPositionBias(3)
    found = bias(M)
    assert found.shape == (3, M * M, M * M)
    assert found.is_contiguous(), "attention reads a row of it for each query"
    table = 16 * torch.sigmoid(bias.mlp(relative_coordinates(M)))
    for i, j in ((0, 0), (3, 17), (24, 6)):
        (y, x), (v, u) = divmod(i, M), divmod(j, M)
        offset = (y - v + M - 1) * (2 * M - 1) + x - u + M - 1
        torch.testing.assert_close(found[:, i, j], table[offset])
