# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels import BackendUnavailableError, KNNDictionary, knn_attention, knn_dictionary
from common_kernels._triton import INTERPRETED

BACKENDS = ["reference", "topk"]


def rows(dictionary, b=0):
    return [sorted(j for j in row if j >= 0) for row in dictionary.index[b].tolist()]


@pytest.mark.parametrize("backend", BACKENDS)
class TestBuilding:
    @pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
    def test_constant_features_give_the_lowest_indices(self, backend, similarity):
        x = torch.ones(2, 40, 4)
        got = knn_dictionary(x, 3, similarity=similarity, force_self=False, backend=backend)
        assert rows(got, 1) == [[0, 1, 2]] * 40
        forced = knn_dictionary(x, 3, similarity=similarity, backend=backend)
        assert rows(forced) == [[0, 1, 2]] * 3 + [[0, 1, i] for i in range(3, 40)]

    def test_duplicates_at_the_threshold_give_the_lowest_index(self, backend):
        x = torch.tensor([[[3.0], [1.0], [2.0], [2.0], [2.0]]])
        got = knn_dictionary(x, 2, force_self=False, backend=backend)
        assert rows(got) == [[0, 2]] * 5

    def test_nan_ranks_last(self, backend):
        x = torch.tensor([[[1.0], [float("nan")], [-5.0], [2.0]]])
        got = knn_dictionary(x, 3, force_self=False, backend=backend)
        assert rows(got)[0] == [0, 2, 3]
        assert rows(got)[3] == [0, 2, 3]
        assert rows(got)[1] == [0, 1, 2]  # all NaN: a tie
        assert rows(knn_dictionary(x, 1, backend=backend)) == [[0], [1], [2], [3]]

    def test_infinities_rank_at_the_ends(self, backend):
        x = torch.tensor([[[1.0], [float("inf")], [float("-inf")], [2.0]]])
        assert rows(knn_dictionary(x, 1, force_self=False, backend=backend))[0] == [1]
        got = knn_dictionary(x, 3, force_self=False, backend=backend)
        assert rows(got)[0] == [0, 1, 3]
        assert not got.has_empty_rows
        assert got.is_full

    def test_negative_zero_ties_with_zero(self, backend):
        x = torch.tensor([[[-0.0], [0.0], [-0.0], [0.0]]])
        assert rows(knn_dictionary(x, 2, force_self=False, backend=backend)) == [[0, 1]] * 4

    def test_overflow_of_half_does_not_matter(self, backend):
        x = torch.tensor([[[300.0], [400.0], [500.0]]], dtype=torch.float16)  # products overflow fp16
        assert rows(knn_dictionary(x, 1, force_self=False, backend=backend)) == [[2]] * 3

    def test_k_one_all_and_more_than_all(self, backend):
        x = torch.randn(2, 37, 3, generator=torch.Generator().manual_seed(0))
        assert rows(knn_dictionary(x, 1, backend=backend)) == [[i] for i in range(37)]
        for k in (37, 38, 1000):
            got = knn_dictionary(x, k, backend=backend)
            assert got.k == 37
            assert got.allowed().all()

    def test_one_token(self, backend):
        got = knn_dictionary(torch.zeros(3, 1, 2), 5, force_self=False, backend=backend)
        assert got.index.tolist() == [[[0]]] * 3

    @pytest.mark.parametrize("groups", [None, 1, 2])
    def test_no_windows(self, backend, groups):
        regions = None if groups is None else torch.zeros(groups, 5, dtype=torch.long)
        got = knn_dictionary(torch.zeros(0, 5, 2), 2, regions=regions, backend=backend)
        assert got.index.shape == (0, 5, 2)
        assert got.index.dtype == torch.int32
        assert got.float_mask(torch.float32).shape == (0, 1, 5, 5)
        assert got.transposed().offsets.shape == (0, 6)
        assert got.bits().shape == got.bits_transposed().shape == (0, 5, 1)

    def test_regions_cycle_over_windows_and_padding_lists_nothing(self, backend):
        x = torch.ones(4, 4, 1)
        regions = torch.tensor([[0, 1, 0, -1], [-1, 5, 5, -7]])
        got = knn_dictionary(x, 3, regions=regions, force_self=False, backend=backend)
        for b in (0, 2):
            assert rows(got, b) == [[0, 2], [1], [0, 2], []]
        for b in (1, 3):
            assert rows(got, b) == [[], [1, 2], [1, 2], []]
        assert got.has_empty_rows
        assert got.empty_rows()[1].tolist() == [True, False, False, True]

    def test_equal_negative_labels_do_not_pair_even_with_force_self(self, backend):
        got = knn_dictionary(torch.ones(1, 3, 1), 2, regions=torch.tensor([[-1, -1, 0]]), backend=backend)
        assert rows(got) == [[], [], [2]]

    def test_regions_without_padding_leave_no_row_empty(self, backend):
        got = knn_dictionary(torch.ones(1, 3, 1), 2, regions=torch.tensor([[0, 1, 0]]), backend=backend)
        assert not got.has_empty_rows
        assert not got.is_full

    def test_no_gradient_flows(self, backend):
        x = torch.randn(1, 4, 2, requires_grad=True)
        assert not knn_dictionary(x, 2, backend=backend).index.requires_grad


class TestErrors:
    def test_dtype(self):
        with pytest.raises(TypeError, match="x must have a floating dtype"):
            knn_dictionary(torch.zeros(1, 4, 2, dtype=torch.int64), 2)
        with pytest.raises(TypeError, match="regions must hold integer labels"):
            knn_dictionary(torch.zeros(1, 4, 2), 2, regions=torch.zeros(1, 4))

    @pytest.mark.parametrize("shape", [(4, 2), (1, 0, 2), (1, 1, 4, 2)])
    def test_shape(self, shape):
        with pytest.raises(ValueError, match=r"x must be \(B, N, C\)"):
            knn_dictionary(torch.zeros(shape), 2)

    @pytest.mark.parametrize("shape", [(3, 4), (1, 5), (4,), (0, 4)])
    def test_regions_shape(self, shape):
        with pytest.raises(ValueError, match=r"regions must be \(G, N\) with G dividing B"):
            knn_dictionary(torch.zeros(2, 4, 2), 2, regions=torch.zeros(shape, dtype=torch.long))

    def test_values(self):
        x = torch.zeros(1, 4, 2)
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            knn_dictionary(x, 0)
        with pytest.raises(ValueError, match="similarity must be one of"):
            knn_dictionary(x, 1, similarity="manhattan")
        with pytest.raises(ValueError, match="backend must be 'auto' or one of"):
            knn_dictionary(x, 1, backend="faiss")

    @pytest.mark.skipif(INTERPRETED, reason="the interpreter runs on the CPU")
    def test_triton_is_unavailable_on_the_cpu(self):
        with pytest.raises(BackendUnavailableError, match="triton"):
            knn_dictionary(torch.zeros(1, 4, 2), 1, backend="triton")


class TestFromIndex:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
    def test_dtype(self, dtype):
        with pytest.raises(TypeError, match="index must hold integers"):
            KNNDictionary.from_index(torch.zeros(1, 2, 2, dtype=dtype), 3)

    @pytest.mark.parametrize("shape", [(2, 2), (1, 2, 0)])
    def test_shape(self, shape):
        with pytest.raises(ValueError, match=r"index must be \(B, N, K\)"):
            KNNDictionary.from_index(torch.zeros(shape, dtype=torch.long), 3)

    def test_num_keys(self):
        with pytest.raises(ValueError, match="num_keys must be at least 1"):
            KNNDictionary.from_index(torch.zeros(1, 1, 1, dtype=torch.long), 0)

    @pytest.mark.parametrize(("entry", "message"), [(3, "from 0 to 3"), (-2, "from -2 to 0"), (2**40, "to")])
    def test_range(self, entry, message):
        with pytest.raises(ValueError, match=message):
            KNNDictionary.from_index(torch.tensor([[[0, entry]]]), 3)

    def test_flags(self):
        full = KNNDictionary.from_index(torch.tensor([[[1, 0], [2, 1]]]), 3)
        assert full.is_full
        assert not full.has_empty_rows
        assert full.unused() is None
        duplicated = KNNDictionary.from_index(torch.tensor([[[1, 1], [2, 1]]]), 3)
        assert not duplicated.is_full
        assert not duplicated.has_empty_rows
        # the slot that a duplicate leaves unused is not the last one
        assert not KNNDictionary.from_index(torch.tensor([[[1, 0, 1]]]), 3).is_full
        assert KNNDictionary.from_index(torch.tensor([[[-1, -1], [2, 1]]]), 3).has_empty_rows

    def test_more_slots_than_keys_are_cut(self):
        dictionary = KNNDictionary.from_index(torch.tensor([[[0, 0, 1, -1, 1], [-1, 1, 1, 1, 1]]]), 2)
        assert dictionary.k == 2
        assert rows(dictionary) == [[0, 1], [1]]
        assert KNNDictionary.from_index(torch.tensor([[[1, 0, 1]]]), 2).is_full

    def test_copies(self):
        index = torch.tensor([[[0, 1]]], dtype=torch.int32)
        dictionary = KNNDictionary.from_index(index, 3)
        index.fill_(2)
        assert rows(dictionary) == [[0, 1]]

    def test_properties(self):
        dictionary = KNNDictionary.from_index(torch.zeros(2, 3, 4, dtype=torch.int64), 5)
        assert (dictionary.batch_size, dictionary.num_queries, dictionary.k) == (2, 3, 4)
        assert dictionary.num_keys == 5
        assert dictionary.device == torch.device("cpu")
        assert repr(dictionary) == "KNNDictionary(windows=2, queries=3, keys=5, k=4, device=cpu)"


def test_forms_are_built_once():
    dictionary = KNNDictionary.from_index(torch.tensor([[[0, -1], [2, 1]]]), 3)
    for form in (
        dictionary.bits,
        dictionary.bits_transposed,
        dictionary.columns,
        dictionary.unused,
        dictionary.transposed,
        lambda: dictionary.float_mask(torch.float32),
        lambda: dictionary.float_mask(torch.bfloat16),
    ):
        first = form()
        assert first is not None
        assert form() is first
    assert dictionary.float_mask(torch.float32).dtype == torch.float32
    assert dictionary.float_mask(torch.bfloat16).dtype == torch.bfloat16


def test_hand_made_forms():
    dictionary = KNNDictionary.from_index(torch.tensor([[[32, 0], [-1, 1], [-1, -1]]]), 33)
    assert dictionary.bits().tolist() == [[[1, 1], [2, 0], [0, 0]]]
    transposed = dictionary.bits_transposed()
    assert transposed.shape == (1, 33, 1)
    assert transposed[0, :2, 0].tolist() == [1, 2]
    assert transposed[0, 32].tolist() == [1]
    assert dictionary.columns().tolist() == [[[0, 32], [1, 1], [0, 0]]]
    mask = dictionary.float_mask(torch.float32)
    assert mask[0, 0, 2].eq(0).all()  # an empty row is open, its output is zeroed later
    assert mask[0, 0, 1].eq(0).nonzero().flatten().tolist() == [1]


def test_bit_31_is_the_sign():
    dictionary = KNNDictionary.from_index(torch.tensor([[[31]]]), 32)
    assert dictionary.bits().tolist() == [[[-(2**31)]]]


@pytest.mark.parametrize("forms_in_inference", [False, True])
@pytest.mark.parametrize("backend", ["reference", "chunked", "sdpa", "csr"])
@pytest.mark.parametrize("padded", [False, True])
def test_made_in_inference_mode_then_used_in_training(backend, forms_in_inference, padded):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 4, generator=g)
    regions = torch.tensor([[0, 0, 0, 1, 1, -1]]) if padded else None
    with torch.inference_mode():
        dictionary = knn_dictionary(x, 3, regions=regions)
        if forms_in_inference:
            p = torch.randn(2, 1, 6, 4, generator=g)
            knn_attention(p, p, p, dictionary, backend=backend)
            dictionary.transposed()
    q = torch.randn(2, 1, 6, 4, generator=g, requires_grad=True)
    (got,) = torch.autograd.grad(knn_attention(q, q, q, dictionary, backend=backend).square().sum(), q)
    again = knn_dictionary(x, 3, regions=regions)
    (expected,) = torch.autograd.grad(knn_attention(q, q, q, again, backend=backend).square().sum(), q)
    assert torch.equal(got, expected)


def test_an_exported_graph_takes_any_number_of_windows_and_writes_to_no_view():
    class Lists(torch.nn.Module):
        def forward(self, x, regions):
            return knn_dictionary(x, 3, regions=regions).index

    def example(windows):
        generator = torch.Generator().manual_seed(windows)
        regions = torch.randint(0, 2, (windows, 6), generator=generator)
        return torch.randn(windows, 6, 2, generator=generator), regions

    windows = {0: torch.export.Dim("windows", min=2, max=64)}
    exported = torch.export.export(Lists(), example(6), dynamic_shapes=(windows, windows), strict=False)
    # exporters to other formats refuse such writes
    assert [node for node in exported.graph.nodes if "fill_." in str(node.target)] == []
    for count in (6, 9):
        x, regions = example(count)
        found, expected = exported.module()(x, regions), knn_dictionary(x, 3, regions=regions).index
        assert torch.equal(found.sort(dim=-1).values, expected.sort(dim=-1).values)
