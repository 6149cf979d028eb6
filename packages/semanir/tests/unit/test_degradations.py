# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from semanir import degradations
from semanir.degradations import (
    JPEG,
    BayerMosaic,
    BicubicDownscale,
    CameraNoise,
    Chain,
    CorrelatedNoise,
    Degradation,
    GaussianNoise,
    MotionBlur,
    OneOf,
    Rain,
    Raindrops,
    Snow,
)

KINDS = [
    GaussianNoise(sigma=5, sigma_max=50),
    CameraNoise(shot=0.01, shot_max=0.1),
    CameraNoise(mosaicked=True),
    CorrelatedNoise(radius=0, radius_max=2),
    JPEG(quality=5, quality_max=95, grid="random"),
    MotionBlur(length=3, length_max=9),
    Rain(density=2, density_max=30, length=3),
    Snow(density=5, density_max=30, size=2),
    Raindrops(count=2, count_max=4, size=0.3),
    OneOf([GaussianNoise(), JPEG(quality=5)], weights=[1, 2]),
    Chain([MotionBlur(length=3), GaussianNoise(), JPEG()]),
    BicubicDownscale(scale=2),
    BayerMosaic(),
]
all_kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photo(*shape):
    """A smooth image with an edge."""
    smooth = torch.rand(shape[0], shape[1], 4, 4, generator=generator(9))
    image = torch.nn.functional.interpolate(smooth, size=shape[2:], mode="bicubic").clamp(0.1, 0.9)
    image[..., : shape[3] // 3] *= 0.5
    return image


@all_kinds
def test_the_generator_alone_decides(kind):
    images, state = photo(2, 3, 18, 22), torch.get_rng_state()
    kept = images.clone()
    first, second = kind(images, generator(1)), kind(images, generator(1))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    assert isinstance(kind, Degradation)
    if type(kind) not in (BicubicDownscale, BayerMosaic):  # these draw nothing
        assert not torch.equal(first, kind(images, generator(2)))


@all_kinds
@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (2, 3, 13, 9), (3, 1, 8, 8)])
def test_every_shape_comes_back_finite(kind, shape):
    if shape[1] == 1 and isinstance(kind, BayerMosaic):
        pytest.skip("a mosaic needs colours")
    result = kind(photo(*shape), generator())
    scale = 2 if isinstance(kind, BicubicDownscale) else 1
    assert result.shape == (*shape[:2], shape[2] // scale, shape[3] // scale)
    assert result.dtype == torch.float32
    assert result.isfinite().all()


def test_noise_has_its_deviation_and_is_not_clipped():
    noise = GaussianNoise(sigma=25)(torch.ones(1, 1, 400, 400), generator()) - 1
    assert noise.std().item() * 255 == pytest.approx(25, rel=0.01)
    assert abs(noise.mean().item()) * 255 < 4 * 25 / 400
    assert (noise > 0).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_each_image_draws_its_own_level_from_the_whole_range():
    flat = torch.zeros(300, 1, 24, 24)
    levels = GaussianNoise(sigma=10, sigma_max=50)(flat, generator()).flatten(1).std(dim=1) * 255
    assert levels.min() == pytest.approx(10, abs=3)
    assert levels.max() == pytest.approx(50, abs=6)
    assert levels.mean() == pytest.approx(30, abs=3)


@pytest.mark.parametrize("radius", [0.0, 0.7, 2.0])
def test_correlated_noise_keeps_its_deviation_and_has_the_correlation_of_its_radius(radius):
    noise = CorrelatedNoise(sigma=20, radius=radius)(torch.zeros(1, 1, 600, 600), generator())[0, 0]
    assert noise.std().item() * 255 == pytest.approx(20, rel=0.03)
    together = (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()
    # of samples of a Gaussian, the sum that the continuous exp(-1 / (4 radius ** 2)) approaches
    taps = torch.arange(-12, 13, dtype=torch.float64)
    g = torch.exp(-0.5 * (taps / radius) ** 2) if radius else (taps == 0).double()
    assert together.item() == pytest.approx(float((g[1:] * g[:-1]).sum() / (g * g).sum()), abs=0.02)


@pytest.mark.parametrize(("shot", "read"), [(0.02, 0.0), (0.0, 12.0), (0.01, 6.0)])
@pytest.mark.parametrize("light", [0.25, 0.8])
def test_camera_noise_has_the_variance_of_its_formula(shot, read, light):
    kind = CameraNoise(shot=shot, read=read, gamma=1)
    noisy = kind(torch.full((1, 1, 500, 500), light), generator())
    assert noisy.var().item() == pytest.approx(shot * light + (read / 255) ** 2, rel=0.02)
    assert noisy.mean().item() == pytest.approx(light, abs=0.003)


def test_camera_noise_is_added_in_linear_light():
    images = torch.full((1, 1, 300, 300), 0.5)
    noisy = CameraNoise(shot=0.001, read=0, gamma=2.2)(images, generator())
    light = 0.5**2.2
    # by the derivative of light ** (1 / 2.2)
    expected = math.sqrt(0.001 * light) * light ** (1 / 2.2 - 1) / 2.2
    assert noisy.std().item() == pytest.approx(expected, rel=0.03)


def test_noise_of_a_mosaic_is_alike_in_neighbours():
    images = torch.full((1, 3, 200, 200), 0.5)
    plain = CameraNoise(gamma=1)(images, generator()) - images
    mosaicked = CameraNoise(gamma=1, mosaicked=True)(images, generator()) - images

    def together(noise):
        return float((noise[..., 1:] * noise[..., :-1]).mean() / noise.var())

    assert abs(together(plain)) < 0.02
    assert together(mosaicked) > 0.2


def test_a_motion_kernel_is_a_centred_path_of_its_length():
    length = torch.tensor([1.0, 5.0, 12.0])
    kernels = degradations.motion_kernels(length, generator(), angle=torch.zeros(3))
    assert kernels.sum(dim=(-2, -1)).flatten().tolist() == pytest.approx([1, 1, 1])
    position = torch.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    for kernel, wanted in zip(kernels[:, 0], length, strict=True):
        across, along = kernel.sum(dim=1), kernel.sum(dim=0)
        assert float((along * position).sum()) == pytest.approx(0, abs=0.02)
        assert float((across * position**2).sum()) == pytest.approx(0, abs=1e-6)
        # variance of a uniform distribution over the path, and what spreading over two pixels adds at most
        variance = float((along * position**2).sum())
        assert (wanted - 1) ** 2 / 12 - 0.1 <= variance <= (wanted - 1) ** 2 / 12 * 1.05 + 0.26


def test_a_curved_path_is_no_straight_line():
    kernel = degradations.motion_kernels(torch.tensor([25.0]), generator(), curvature=3.0)[0, 0]
    position = torch.stack(torch.meshgrid(*[torch.arange(len(kernel)).float()] * 2, indexing="ij"))
    centre = (kernel * position).sum(dim=(-2, -1))
    offset = position - centre[:, None, None]
    covariance = torch.einsum("ihw,jhw,hw->ij", offset, offset, kernel)
    assert torch.linalg.eigvalsh(covariance)[0] > 0.5


def test_blurring_a_point_shows_the_kernel_and_a_flat_image_stays():
    kernels = degradations.motion_kernels(torch.tensor([6.0]), generator(), curvature=1)
    size = kernels.shape[-1]
    point = torch.zeros(1, 1, 2 * size + 1, 2 * size + 1)
    point[0, 0, size, size] = 1
    seen = degradations.blur(point, kernels)[0, 0, size - size // 2 :, size - size // 2 :][:size, :size]
    assert torch.allclose(seen, kernels[0, 0].flip(-1, -2), atol=1e-6)
    flat = torch.full((1, 3, 9, 9), 0.3)
    assert torch.allclose(degradations.blur(flat, kernels, gamma=2.2), flat, atol=1e-6)


def test_weather_of_no_density_changes_nothing_and_more_of_it_changes_more():
    images = photo(2, 3, 40, 40)
    for none in (Rain(density=0, veil=0), Snow(density=0), Raindrops(count=0)):
        assert torch.allclose(none(images, generator()), images, atol=1e-6)
    for little, much in (
        (Rain(density=1, veil=0, length=5), Rain(density=30, veil=0, length=5)),
        (Snow(density=1, size=4), Snow(density=30, size=4)),
        (Raindrops(count=1, size=0.3), Raindrops(count=10, size=0.3)),
    ):
        few, many = ((kind(images, generator()) - images).abs().mean() for kind in (little, much))
        assert 0 < few < many
        assert many < 1


def test_one_of_draws_each_choice_by_its_weight():
    kind = OneOf([GaussianNoise(sigma=0), GaussianNoise(sigma=100)], weights=[1, 3])
    changed = (kind(torch.zeros(400, 1, 2, 2), generator()).flatten(1).abs().amax(dim=1) > 0).float().mean()
    assert changed.item() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 400))


def test_a_chain_is_one_after_the_other():
    images, g = photo(1, 3, 16, 16), generator(4)
    expected = JPEG(quality=20)(GaussianNoise()(images, g), g)
    assert torch.equal(Chain([GaussianNoise(), JPEG(quality=20)])(images, generator(4)), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(sigma=-1), "sigma must lie in"),
        (lambda: GaussianNoise(sigma=30, sigma_max=20), "sigma_max must be at least sigma"),
        (lambda: CameraNoise(shot=2), "shot must lie in"),
        (lambda: CorrelatedNoise(radius=100), "radius must lie in"),
        (lambda: JPEG(quality=0), "quality must lie in"),
        (lambda: BicubicDownscale(scale=5), "scale must be 2, 3 or 4"),
        (lambda: MotionBlur(length=0.5), "length must lie in"),
        (lambda: Rain(veil=2), "veil must lie in"),
        (lambda: OneOf([]), "one positive weight"),
        (lambda: OneOf([JPEG()], weights=[1, 2]), "one positive weight"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="floating"):
        GaussianNoise()(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), generator())
    for shape in ((3, 4, 4), (1, 2, 4, 4), (1, 3, 0, 4)):
        with pytest.raises(ValueError, match="images must be"):
            GaussianNoise()(torch.zeros(shape), generator())
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        BayerMosaic()(torch.zeros(1, 1, 4, 4), generator())
    with pytest.raises(ValueError, match="too small"):
        BicubicDownscale(scale=4)(torch.zeros(1, 3, 3, 9), generator())
    with pytest.raises(ValueError, match="kernels must be"):
        degradations.blur(torch.zeros(2, 3, 4, 4), torch.ones(1, 1, 3, 3))
    with pytest.raises(ValueError, match="quality"):
        degradations.compress_jpeg(torch.zeros(1, 3, 4, 4), 101)
    with pytest.raises(ValueError, match="scale"):
        degradations.resize_bicubic(torch.zeros(1, 3, 4, 4), 0)
