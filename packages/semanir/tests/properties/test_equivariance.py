# SPDX-License-Identifier: Apache-2.0
"""What windows may and may not see."""

import torch
from semanir import SemanIR, SemanIRConfig
from semanir.modules.attention import KeySemanticAttention
from semanir.modules.blocks import Layer, Stage
from torch import nn

M = 4


def stage(shift: int) -> Stage:
    """Return a stage without convolution at its end, so that only attention mixes tokens."""
    torch.manual_seed(0)
    attention = KeySemanticAttention(8, 2, window_size=M, position_bias="none")
    layers = [Layer(8, attention, mlp_ratio=2, norm="pre") for _ in range(2)]
    built = Stage(layers, dim=8, window_size=M, shifts=[shift, shift]).double().eval()
    built.conv = nn.Identity()
    return built


def test_a_window_does_not_see_another():
    x = torch.rand(1, 8, 2 * M, 3 * M, dtype=torch.float64)
    changed = x.clone()
    changed[..., :M, M : 2 * M] += 1
    difference = (stage(0)(x, k=5) - stage(0)(changed, k=5)).abs().amax(dim=1)[0]
    assert difference[:M, M : 2 * M].min() > 0
    difference[:M, M : 2 * M] = 0
    assert difference.max() == 0


def test_rolled_windows_do_not_see_across_the_seam():
    x = torch.rand(1, 8, 3 * M, 3 * M, dtype=torch.float64)
    changed = x.clone()
    changed[..., : M // 2, :] += 1  # the strip that the roll moves to the bottom
    difference = (stage(M // 2)(x, k=M * M) - stage(M // 2)(changed, k=M * M)).abs().amax(dim=1)[0]
    assert difference[: M // 2].min() > 0
    assert difference[M // 2 :].max() == 0


def test_shifting_a_periodic_map_by_a_window_shifts_the_output():
    x = torch.rand(1, 8, 2 * M, 2 * M, dtype=torch.float64)
    moved = torch.roll(x, (M, M), (-2, -1))
    torch.testing.assert_close(stage(0)(moved, k=5), torch.roll(stage(0)(x, k=5), (M, M), (-2, -1)))


def test_permuting_the_tokens_of_a_window_permutes_the_output():
    order = torch.randperm(M * M, generator=torch.Generator().manual_seed(0))
    x = torch.rand(1, 8, M, M, dtype=torch.float64)
    permuted = x.flatten(2)[..., order].unflatten(2, (M, M))
    out, out_permuted = stage(0)(x, k=5), stage(0)(permuted, k=5)
    torch.testing.assert_close(out.flatten(2)[..., order], out_permuted.flatten(2))


def test_shifting_a_periodic_image_shifts_what_the_whole_network_makes_of_it():
    """With convolutions that go around the border, the U-net commutes with shifts by its coarsest window."""
    torch.manual_seed(0)
    config = SemanIRConfig.preset(
        "tiny",
        embed_dims=(8, 8),
        num_heads=(1, 2),
        window_size=M,
        k=5,
        shift="none",
        conv_blocks=(1, 0, 1, 0),
    )
    model = SemanIR(config).double().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.padding_mode = "circular"
    grid = config.size_multiple
    assert grid == 4 * M  # two levels, and pixels folded two by two
    x = torch.rand(1, 3, 2 * grid, 3 * grid, dtype=torch.float64)
    y = model(x)

    def error(*amount: int) -> float:
        moved = model(torch.roll(x, amount, (-2, -1)))
        return (moved - torch.roll(y, amount, (-2, -1))).abs().max().item()

    assert error(grid, 2 * grid) < 1e-7
    assert error(1, 1) > 1e-4
