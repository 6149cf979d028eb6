# SPDX-License-Identifier: Apache-2.0
import os

import pytest
import torch
from common_kernels import BackendUnavailableError, fuse_phase
from common_kernels._triton import INTERPRETED

every_backend = pytest.mark.parametrize("backend", ["reference", "phasor"])


def pair(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=g, dtype=torch.float64).to(dtype).unbind()


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def wave(phase, *, frequency=1, amplitude=1.0, mean=0.0):
    angle = 2 * torch.pi * frequency * torch.arange(8, dtype=torch.float64) / 8
    return (mean + amplitude * torch.cos(angle + phase)).expand(8, 8)


@every_backend
@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_hand_case(backend, weight):
    # one wave of amplitude 3 at phase 0.2, guided by one of amplitude 7 at phase 1.4; means of one sign
    x, guidance = wave(0.2, amplitude=3.0, mean=2.0), wave(1.4, amplitude=7.0, mean=5.0)
    own, guide = torch.tensor([0.2j, 1.4j], dtype=torch.complex128).exp()
    mean = (1 - weight) * own + weight * guide
    if weight == 0.5:
        close(mean.angle(), torch.tensor(0.8, dtype=torch.float64))
    expected = wave(mean.angle(), amplitude=3.0, mean=2.0)
    close(fuse_phase(x, guidance, weight=weight, backend=backend), expected)
    close(fuse_phase(x.T, guidance.T, weight=weight, backend=backend), expected.T)


@every_backend
def test_default_is_the_middle(backend):
    x, guidance = pair(8, 8)
    half = fuse_phase(x, guidance, weight=0.5, mode="guarded", backend=backend)
    assert torch.equal(fuse_phase(x, guidance, backend=backend), half)
    assert torch.equal(fuse_phase(x, guidance), fuse_phase(x, guidance, backend="phasor"))


@every_backend
def test_opposite_means_keep_the_brightness(backend):
    x, guidance = pair(8, 8)
    x, guidance = x + 1 - x.mean(), guidance - 3 - guidance.mean()
    out = fuse_phase(x, guidance, backend=backend)
    close(out.mean(), torch.tensor(1.0, dtype=torch.float64))


def test_published_code_erases_the_brightness():
    x, guidance = pair(8, 8)
    x, guidance = x + 1 - x.mean(), guidance - 3 - guidance.mean()
    out = fuse_phase(x, guidance, mode="reference")
    close(out.mean(), torch.tensor(0.0, dtype=torch.float64))
    # elsewhere the modes agree
    guarded = fuse_phase(x, guidance)
    close(guarded - guarded.mean(), out - out.mean())


@every_backend
def test_heavier_side_wins_between_opposite_phases(backend):
    x = torch.full((4, 4), 2.0, dtype=torch.float64)
    close(fuse_phase(x, -x, weight=0.4, backend=backend), x)
    close(fuse_phase(x, -x, weight=0.6, backend=backend), -x)


@every_backend
def test_zero_patches(backend):
    x, _ = pair(3, 8, 7)
    zero = torch.zeros_like(x)
    assert torch.equal(fuse_phase(zero, x, backend=backend), zero)
    assert torch.equal(fuse_phase(zero, zero, backend=backend), zero)
    for weight in (0.5, 1.0):
        close(fuse_phase(x, zero, weight=weight, backend=backend), x)


def test_gradients_of_degenerate_bins_are_finite():
    x, guidance = pair(8, 8)
    for a, b in ((x, torch.zeros_like(x)), (torch.zeros_like(x), x), (x, -x), (x * 0, x * 0), (x, guidance)):
        inputs = [a.clone().requires_grad_(), b.clone().requires_grad_()]
        for grad in torch.autograd.grad(fuse_phase(*inputs, backend="phasor").square().sum(), inputs):
            assert grad.isfinite().all()


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_single(backend, dtype):
    x, guidance = pair(2, 17, 12, dtype=dtype)
    out = fuse_phase(x, guidance, backend=backend)
    assert out.dtype == dtype
    assert torch.equal(out, fuse_phase(x.float(), guidance.float(), backend=backend).to(dtype))


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(backend, dtype):
    for shape in ((1, 1), (5, 8), (0, 4, 4), (2, 3, 4, 7)):
        x, guidance = pair(*shape, dtype=dtype)
        out = fuse_phase(x, guidance, backend=backend)
        assert out.shape == x.shape
        assert out.dtype == dtype


@every_backend
def test_weights_per_image(backend):
    x, guidance = pair(3, 2, 6, 9)
    weight = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64).view(3, 1, 1, 1)
    out = fuse_phase(x, guidance, weight=weight, backend=backend)
    for i in range(3):
        close(out[i], fuse_phase(x[i], guidance[i], weight=weight[i].item(), backend=backend))


@every_backend
def test_weights_per_bin(backend):
    x, guidance = pair(8, 8)
    weight = torch.zeros(8, 5, dtype=torch.float64)
    weight[:, 2] = 1.0
    spectrum = torch.fft.rfft2(fuse_phase(x, guidance, weight=weight, backend=backend))
    before, guide = torch.fft.rfft2(x), torch.fft.rfft2(guidance)
    close(spectrum[:, [0, 1, 3, 4]], before[:, [0, 1, 3, 4]])
    close(spectrum[:, 2], torch.polar(before[:, 2].abs(), guide[:, 2].angle()))


@every_backend
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 6), (2, 3, 4)])
def test_gradcheck(backend, shape):
    x, guidance = (t.requires_grad_() for t in pair(*shape))
    assert torch.autograd.gradcheck(lambda x, g: fuse_phase(x, g, weight=0.3, backend=backend), (x, guidance))


def test_gradcheck_of_the_weight():
    x, guidance = pair(2, 4, 5)
    weight = torch.tensor([0.2, 0.6], dtype=torch.float64).view(2, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w: fuse_phase(x, guidance, weight=w, backend="phasor"), weight, atol=1e-6
    )


@pytest.mark.parametrize("lead", [(37,), (5, 8)])
def test_blocks_change_nothing(lead):
    x, guidance = pair(*lead, 64, 60, dtype=torch.float32)
    assert x.numel() > 2 * (1 << 16)
    out = fuse_phase(x, guidance, weight=0.3, backend="phasor").flatten(0, -3)
    for image, guide, got in zip(x.flatten(0, -3), guidance.flatten(0, -3), out, strict=True):
        close(got, fuse_phase(image, guide, weight=0.3, backend="phasor"), atol=1e-6)


def test_inputs_are_left_alone():
    x, guidance = pair(3, 8, 8)
    copies = x.clone(), guidance.clone()
    fuse_phase(x, guidance)
    assert torch.equal(x, copies[0])
    assert torch.equal(guidance, copies[1])


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recording_changes_nothing(dtype, weight):
    # without a gradient another formula runs
    x, guidance = pair(3, 16, 12, dtype=dtype)
    for a, b in ((x, guidance), (x, -x), (x, x * 0), (x * 0, x), (x, guidance * 1e-18), (x * 1e12, guidance)):
        a = a.clone()
        out = fuse_phase(a, b, weight=weight, backend="phasor")
        recorded = fuse_phase(a.clone().requires_grad_(), b, weight=weight, backend="phasor")
        assert recorded.requires_grad
        assert not out.requires_grad
        close(out / a.abs().max().clamp(min=1), recorded.detach() / a.abs().max().clamp(min=1), atol=2e-6)
        with torch.no_grad():
            assert torch.equal(
                fuse_phase(a.clone().requires_grad_(), b, weight=weight, backend="phasor"), out
            )


@pytest.mark.parametrize(("own", "other"), [(-73, 0), (-73, -73), (0, -73), (50, -50)])
def test_far_scales_in_single(own, other):
    # exponents of two: squares underflow, and the ratio of the powers overflows
    own, other = 2.0**own, 2.0**other
    x, guidance = pair(2, 8, 8, dtype=torch.float32)
    out = fuse_phase(x * own, guidance * other, backend="phasor")
    assert out.isfinite().all()
    if own > 1:
        close(out / own, fuse_phase(x, guidance, backend="phasor"), atol=2e-6)
    else:
        close(out / own, x, atol=2e-6)


# torch's own, on the first forward-mode derivative of a process
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_function_transforms():
    x, guidance = pair(3, 6, 5)
    grad_output, _ = pair(3, 6, 5, seed=1)

    def gradient_through_map(backend):
        def loss(a):
            out = torch.vmap(lambda u, v: fuse_phase(u, v, weight=0.3, backend=backend))(a, guidance)
            return (grad_output * out).sum()

        return torch.func.grad(loss)(x)

    def tangent(backend):
        return torch.func.jvp(lambda a: fuse_phase(a, guidance, backend=backend), (x,), (grad_output,))[1]

    close(gradient_through_map("phasor"), gradient_through_map("reference"), atol=1e-11)
    close(tangent("phasor"), tangent("reference"), atol=1e-11)


class TestErrors:
    def test_dtype(self):
        x = torch.zeros(4, 4)
        with pytest.raises(TypeError, match="x and guidance must have one floating dtype"):
            fuse_phase(x, x.double())
        for dtype in (torch.int64, torch.complex64):
            with pytest.raises(TypeError, match="x and guidance must have one floating dtype"):
                fuse_phase(x.to(dtype), x.to(dtype))

    @pytest.mark.parametrize(("a", "b"), [((4, 4), (4, 5)), ((4,), (4,)), ((0, 4), (0, 4)), ((2, 0), (2, 0))])
    def test_shapes(self, a, b):
        with pytest.raises(ValueError, match=r"x and guidance must both be \(..., H, W\)"):
            fuse_phase(torch.zeros(a), torch.zeros(b))

    def test_device(self):
        with pytest.raises(ValueError, match="must be on one device"):
            fuse_phase(torch.zeros(4, 4), torch.zeros(4, 4, device="meta"))

    @pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
    def test_weight(self, weight):
        with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\]"):
            fuse_phase(torch.zeros(4, 4), torch.zeros(4, 4), weight=weight)

    def test_names(self):
        x = torch.zeros(4, 4)
        with pytest.raises(ValueError, match="mode must be 'guarded' or 'reference'"):
            fuse_phase(x, x, mode="angles")
        with pytest.raises(ValueError, match="backend must be 'auto' or one of"):
            fuse_phase(x, x, backend="fftw")

    def test_unavailable(self):
        x = torch.zeros(4, 4)
        with pytest.raises(BackendUnavailableError, match="reproduces the guarded mode only"):
            fuse_phase(x, x, mode="reference", backend="phasor")
        if not INTERPRETED:
            with pytest.raises(BackendUnavailableError, match="triton"):
                fuse_phase(x, x, backend="triton")


@pytest.mark.interpret
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter computes in numpy
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1")
class TestInterpretedKernel:
    @pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
    @pytest.mark.parametrize("shape", [(8, 8), (1, 1), (1, 7), (3, 33, 41), (2, 2, 16, 15)])
    def test_against_the_reference(self, shape, weight):
        x, guidance = pair(*shape, dtype=torch.float32)
        got = fuse_phase(x, guidance, weight=weight, backend="triton")
        # in the same dtype, since that sets the guard
        close(got, fuse_phase(x, guidance, weight=weight, backend="reference"), atol=2e-5)

    def test_degenerate_bins(self):
        x, guidance = pair(8, 8, dtype=torch.float32)
        zero = torch.zeros_like(x)
        close(fuse_phase(x, -x, backend="triton"), x, atol=1e-5)
        close(fuse_phase(x, zero, weight=1.0, backend="triton"), x, atol=1e-5)
        assert torch.equal(fuse_phase(zero, guidance, backend="triton"), zero)

    def test_half(self):
        x, guidance = pair(9, 9, dtype=torch.float16)
        got = fuse_phase(x, guidance, backend="triton")
        assert got.dtype == torch.float16
        close(got.float(), fuse_phase(x, guidance, backend="phasor").float(), atol=4e-3)

    def test_refusals(self):
        x, guidance = pair(4, 4, dtype=torch.float32)
        for message, options in (
            ("guarded mode only", {"mode": "reference"}),
            ("got a tensor", {"weight": torch.tensor(0.5)}),
        ):
            with pytest.raises(BackendUnavailableError, match=message):
                fuse_phase(x, guidance, backend="triton", **options)
        with pytest.raises(BackendUnavailableError, match="has no backward"):
            fuse_phase(x.requires_grad_(), guidance, backend="triton")
        with pytest.raises(BackendUnavailableError, match="float64"):
            fuse_phase(guidance.double(), guidance.double(), backend="triton")
