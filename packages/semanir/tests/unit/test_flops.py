# SPDX-License-Identifier: Apache-2.0
"""Operations of the network, counted by torch: linear in the keys and in the pixels."""

import pytest
import torch
from common_kernels import BackendUnavailableError
from common_kernels.bench.flops import FLOP_FORMULAS
from semanir import SemanIR, SemanIRConfig
from torch.utils.flop_counter import FlopCounterMode

DIM, STAGES, DEPTH, WINDOW = 24, 2, 2, 8


def network():
    torch.manual_seed(0)
    config = SemanIRConfig.preset(
        "sr-small",
        embed_dims=(DIM,),
        num_heads=(2,),
        depths=(DEPTH,) * STAGES,
        window_size=WINDOW,
        position_bias="none",
        upscale=2,
        upsampler="pixelshuffledirect",
    )
    return SemanIR(config).eval()


def count(model, k, *, backend="csr", size=(16, 24)):
    """Return the counted operations of one image."""
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter, torch.no_grad():
        model(torch.rand(1, 3, *size), k=k, backend=backend)
    return counter.get_total_flops()


@pytest.fixture
def sparse():
    model = network()
    try:
        count(model, 4)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    return model


def test_the_sparse_path_is_linear_in_the_keys(sparse):
    base, *more = (count(sparse, k) for k in (4, 5, 16, 64))
    per_key = 2 * 2 * DIM * STAGES * DEPTH * 16 * 24  # a product for the logits, and one for the sum
    assert [each - base for each in more] == [1 * per_key, 12 * per_key, 60 * per_key]


def test_the_mask_path_does_not_depend_on_the_keys():
    model = network()
    assert count(model, 4, backend="sdpa") == count(model, 64, backend="sdpa")


@pytest.mark.parametrize("backend", ["csr", "sdpa"])
def test_both_are_linear_in_the_pixels(sparse, backend):
    once = count(sparse, 9, backend=backend, size=(16, 24))
    assert count(sparse, 9, backend=backend, size=(48, 32)) == 4 * once


@pytest.mark.parametrize("k", [4, 32])
def test_the_count_is_the_formula_of_the_design(sparse, k):
    """Per pixel: 8 d^2 + 2 k d for a layer, 9 d^2 + N d for a stage, and the convolutions at both ends."""
    layers = STAGES * DEPTH * (8 * DIM**2 + 2 * k * DIM)
    stages = STAGES * (9 * DIM**2 + WINDOW**2 * DIM)
    ends = 9 * 3 * DIM + 9 * DIM**2 + 9 * DIM * 3 * 2**2
    assert count(sparse, k) == pytest.approx(2 * 16 * 24 * (layers + stages + ends), rel=0.02)
