# SPDX-License-Identifier: Apache-2.0
"""The Triton backend of knn_dictionary: exact sets up to the rounding of the similarities.

Runs on a CUDA device, or on the CPU under Triton's interpreter (``TRITON_INTERPRET=1``).
"""

import os

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from common_kernels import BackendUnavailableError, knn_dictionary
from common_kernels.ops.knn_dictionary.reference import ranking
from common_kernels.ops.knn_dictionary.triton import knn_dictionary_triton, launch
from common_kernels.ops.knn_dictionary.triton.limits import MAX_LISTED, MAX_ROW

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.interpret,
    pytest.mark.skipif(
        not INTERPRETED and not torch.cuda.is_available(), reason="needs a CUDA device or TRITON_INTERPRET=1"
    ),
]


@pytest.fixture
def device():
    return torch.device("cpu" if INTERPRETED else "cuda")


class Spy:
    """A kernel that calls ``after`` with its arguments when it has run."""

    def __init__(self, kernel, after):
        self.kernel, self.after = kernel, after

    def __getitem__(self, grid):
        def run(*args, **kwargs):
            self.kernel[grid](*args, **kwargs)
            self.after(*args)

        return run


def use_small_tiles(monkeypatch):
    """Take the way of long windows for short ones, in tiles so small that there are several of them."""
    tile = {"BLOCK_R": 16, "BLOCK_N": 16, "BLOCK_C": 16, "num_warps": 4, "num_stages": 1}
    monkeypatch.setattr(launch, "MAX_ROW", dict.fromkeys(launch.MAX_ROW, 0))
    monkeypatch.setattr(launch, "pass_options", lambda name, dtype: tile)
    monkeypatch.setattr(launch, "num_slots", lambda k: 32)


def spy_on_collecting(monkeypatch, after):
    """Call ``after`` with the counts of the columns that were written down."""
    kernel = launch.knn_dictionary_collect_kernel
    monkeypatch.setattr(launch, "knn_dictionary_collect_kernel", Spy(kernel, lambda *args: after(args[5])))


@pytest.fixture(params=["rows", "passes", "exact"])
def _every_way(request, monkeypatch):
    """Whole rows; passes; and passes that believe that no row had room enough."""
    if request.param != "rows":
        use_small_tiles(monkeypatch)
    if request.param == "exact":
        spy_on_collecting(monkeypatch, lambda count: count.fill_(2**30))


def features(B, N, C, dtype, device, seed=0):
    return torch.randn(B, N, C, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def assert_best(x, k, similarity, force_self, regions):
    """Each row holds as many keys as it may, and no key left out beats one taken by more than rounding."""
    dictionary = knn_dictionary(
        x, k, similarity=similarity, force_self=force_self, regions=regions, backend="triton"
    )
    scores = ranking(x.double(), similarity, force_self, regions)
    possible = (scores > float("-inf")).sum(dim=-1)
    chosen = dictionary.allowed()
    assert torch.equal(chosen.sum(dim=-1), possible.clamp(max=k))
    assert not (chosen & (scores == float("-inf"))).any()
    used = dictionary.index >= 0
    assert torch.equal(used, used.sort(dim=-1, descending=True, stable=True).values)
    worst_taken = scores.masked_fill(~chosen, float("inf")).amin(dim=-1)
    best_left = scores.masked_fill(chosen, float("-inf")).amax(dim=-1)
    magnitude = scores[scores.isfinite()].abs().max() if scores.isfinite().any() else 0.0
    assert (worst_taken >= best_left - 1e-6 * magnitude).all()


CASES = {
    "one": (1, 1, 1, 1, "dot", False, torch.float32),
    "dot": (1, 40, 5, 7, "dot", False, torch.float32),
    "dot-self": (2, 33, 20, 8, "dot", True, torch.float32),
    "cosine": (1, 37, 9, 5, "cosine", True, torch.float32),
    "l2": (1, 50, 12, 6, "l2", False, torch.float32),
    "all-keys": (1, 20, 6, 20, "dot", True, torch.float32),
    "fp16": (1, 45, 16, 9, "dot", True, torch.float16),
    "fp16-cosine": (1, 45, 16, 9, "cosine", True, torch.float16),
    "row-of-several-warps": (1, 130, 8, 16, "l2", True, torch.float32),
}


@pytest.mark.usefixtures("_every_way")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_takes_the_most_similar(case, device):
    B, N, C, k, similarity, force_self, dtype = case
    assert_best(features(B, N, C, dtype, device), k, similarity, force_self, None)


@pytest.mark.usefixtures("_every_way")
@pytest.mark.parametrize("force_self", [False, True])
def test_regions_and_padding(force_self, device):
    generator = torch.Generator().manual_seed(3)
    regions = torch.randint(-1, 3, (2, 30), generator=generator).to(device)
    assert (regions < 0).any()
    assert_best(features(4, 30, 7, torch.float32, device), 12, "cosine", force_self, regions)


@pytest.mark.usefixtures("_every_way")
def test_equals_the_reference_where_scores_are_exact(device):
    # small integers: every similarity is exact in fp32, so ties are true ties
    x = torch.randint(-2, 3, (1, 50, 4), generator=torch.Generator().manual_seed(0)).float().to(device)
    for similarity in ("dot", "l2"):
        ours = knn_dictionary(x, 9, similarity=similarity, backend="triton").allowed()
        assert torch.equal(ours, knn_dictionary(x, 9, similarity=similarity, backend="reference").allowed())


@pytest.mark.usefixtures("_every_way")
def test_ties_go_to_the_lower_index(device):
    x = torch.ones(1, 20, 4, device=device)
    index = knn_dictionary(x, 5, force_self=False, backend="triton").index
    assert torch.equal(index, torch.arange(5, device=device, dtype=torch.int32).expand(1, 20, 5))


@pytest.mark.usefixtures("_every_way")
def test_minus_zero_ties_with_zero(device):
    x = torch.zeros(1, 6, 1, device=device)
    x[0, 0] = -1.0  # its similarities to the others are minus zero
    x[0, 3] = 0.5
    ours = knn_dictionary(x, 3, force_self=False, backend="triton").allowed()
    assert torch.equal(ours, knn_dictionary(x, 3, force_self=False, backend="reference").allowed())


@pytest.mark.usefixtures("_every_way")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy beneath the interpreter warns of NaN
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e-42], ids=str)
def test_extreme_features_choose_as_the_reference_does(value, device):
    x = features(1, 24, 1, torch.float32, device)
    x[0, 5] = value
    ours = knn_dictionary(x, 4, force_self=False, backend="triton").allowed()
    expected = knn_dictionary(x, 4, force_self=False, backend="reference").allowed()
    assert torch.equal(ours, expected)


def test_non_contiguous_features(device):
    x = features(2, 5, 21, torch.float32, device).mT
    assert not x.is_contiguous()
    assert_best(x, 4, "dot", True, None)


def test_no_window(device):
    index = knn_dictionary_triton(torch.zeros(0, 8, 3, device=device), 2, "dot", True, None)
    assert index.shape == (0, 8, 2)


@pytest.mark.slow
def test_long_window_with_the_tiles_that_it_gets(device):
    # a window just above what fits a row
    x = features(1, MAX_ROW[torch.float32] + 37, 6, torch.float32, device)
    assert_best(x, 20, "l2", True, None)


@pytest.mark.parametrize("side", [12, 16])
def test_few_columns_of_a_smooth_image_reach_the_bound(side, device, monkeypatch):
    # tokens are most similar to those beside and below them: were a group made of columns a fixed distance
    # apart, these would share few groups, and the bound would let too many others in
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), dim=-1)
    x = places.reshape(1, -1, 2).float().to(device)
    use_small_tiles(monkeypatch)
    counts = []
    spy_on_collecting(monkeypatch, lambda count: counts.append(count.clone()))
    assert_best(x, 12, "l2", True, None)
    [count] = counts
    assert (count >= 12).all()
    assert (count <= 32).float().mean() > 0.9


def test_repeats_agree(device, monkeypatch):
    use_small_tiles(monkeypatch)
    x = features(2, 50, 3, torch.float32, device).round(decimals=1)
    first, again = (knn_dictionary(x, 9, backend="triton").index for _ in range(2))
    assert torch.equal(first, again)
    alone = knn_dictionary(x[1:], 9, backend="triton").index
    assert torch.equal(first[1:], alone)


def test_k_beyond_the_groups_is_refused(device):
    x = torch.zeros(1, MAX_ROW[torch.float32] + 1, 1, device=device)
    with pytest.raises(BackendUnavailableError, match="k of at most 1024 in windows of 1025 tokens"):
        knn_dictionary(x, MAX_LISTED + 1, backend="triton")


def test_operator_passes_opcheck(device):
    x = features(2, 9, 4, torch.float32, device)
    regions = torch.zeros(1, 9, dtype=torch.int64, device=device)
    operator = torch.ops.common_kernels.knn_dictionary_index.default
    torch.library.opcheck(operator, (x, x.square().sum(-1), regions, "l2", 3, True))
    torch.library.opcheck(operator, (x, None, None, "dot", 3, False))
