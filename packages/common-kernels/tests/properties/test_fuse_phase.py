# SPDX-License-Identifier: Apache-2.0
import torch
from common_kernels import fuse_phase
from hypothesis import example, given, settings
from hypothesis import strategies as st

quick = settings(deadline=None, derandomize=True, max_examples=60)
backends = st.sampled_from(["reference", "phasor"])
weights = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.77, 1.0])


@st.composite
def pairs(draw: st.DrawFn):
    lead = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    shape = (2, *lead, draw(st.integers(1, 17)), draw(st.integers(1, 17)))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.randn(shape, generator=g, dtype=torch.float64).unbind()


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def spectrum(x):
    return torch.fft.fft2(x, norm="ortho")


@quick
@given(pairs(), weights)
@example((torch.ones(1, 1), torch.ones(1, 1)), 0.5)
@example((torch.ones(1, 1), -torch.ones(1, 1)), 0.5)
def test_phasor_equals_reference(images, weight):
    x, guidance = (image.double() for image in images)
    a, b = (fuse_phase(x, guidance, weight=weight, backend=name) for name in ("phasor", "reference"))
    close(a, b)


@quick
@given(pairs(), backends)
def test_weight_zero_is_the_identity(images, backend):
    x, guidance = images
    close(fuse_phase(x, guidance, weight=0.0, backend=backend), x)


@quick
@given(pairs(), backends)
def test_weight_one_takes_the_phases_of_the_guidance(images, backend):
    x, guidance = images
    out = spectrum(fuse_phase(x, guidance, weight=1.0, backend=backend))
    guide = spectrum(guidance)
    close(out, spectrum(x).abs() * guide / guide.abs())


@quick
@given(pairs(), weights, backends)
def test_amplitudes_and_energy_are_kept(images, weight, backend):
    x, guidance = images
    out = fuse_phase(x, guidance, weight=weight, backend=backend)
    close(spectrum(out).abs(), spectrum(x).abs())
    close(out.norm(), x.norm())


@quick
@given(pairs(), weights, backends)
def test_phases_are_the_circular_mean(images, weight, backend):
    x, guidance = images
    a, b = spectrum(x), spectrum(guidance)
    mean = (1 - weight) * a / a.abs() + weight * b / b.abs()
    expected = torch.where(mean.abs() <= 1.5e-8, a, a.abs() * mean / mean.abs())
    out = spectrum(fuse_phase(x, guidance, weight=weight, backend=backend))
    close(out, expected, atol=1e-10)  # near-opposite phases magnify rounding


@quick
@given(pairs(), weights, backends, st.floats(0.1, 10), st.floats(0.1, 10))
def test_scales(images, weight, backend, a, b):
    # linear in the amplitude of the image, blind to that of the guidance
    x, guidance = images
    out = fuse_phase(x, guidance, weight=weight, backend=backend)
    close(fuse_phase(a * x, b * guidance, weight=weight, backend=backend), a * out, atol=1e-10)


@quick
@given(pairs(), weights, backends, st.integers(0, 16), st.integers(0, 16))
def test_cyclic_shift_commutes(images, weight, backend, down, right):
    x, guidance = images
    out = fuse_phase(x, guidance, weight=weight, backend=backend).roll((down, right), (-2, -1))
    shifted = (image.roll((down, right), (-2, -1)) for image in images)
    close(fuse_phase(*shifted, weight=weight, backend=backend), out, atol=1e-10)


@quick
@given(pairs(), weights, backends)
def test_own_guidance_changes_nothing(images, weight, backend):
    x, _ = images
    close(fuse_phase(x, x, weight=weight, backend=backend), x)
    close(fuse_phase(x, 3 * x, weight=weight, backend=backend), x)
