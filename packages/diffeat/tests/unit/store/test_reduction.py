# SPDX-License-Identifier: Apache-2.0
"""Pooling, principal components and 8-bit integers, against formulas in float64."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr
from diffeat.features import Features
from diffeat.images import load_images
from diffeat.store import FeatureStore, NeighbourIndex, StoreError, StoreOptions
from torch import nn

NAMES = ("first", "second")


class Pixels:
    """An extractor whose features are mixed from the pixels of their image."""

    name, revision, dtype, device = "pixels", None, torch.float32, torch.device("cpu")

    def __init__(self):
        self.model = nn.ModuleDict({name: nn.Identity() for name in NAMES})
        self.pipeline = SimpleNamespace(components={})
        generator = torch.Generator().manual_seed(1)
        self.weights = {name: torch.randn(16, 3, generator=generator) for name in NAMES}

    def size_for(self, size):
        return (8, 8)

    def noise_levels(self, options):
        return ()

    def __call__(self, images, names, options, **more):
        pixels = torch.stack(list(load_images(images)))
        mixed = {name: torch.einsum("kc,bchw->bkhw", self.weights[name], pixels) for name in names}
        return Features({name: value + value**2 for name, value in mixed.items()}, SimpleNamespace())


EXTRACTOR = Pixels()


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(40)]


@pytest.fixture
def whole(images):
    pixels = [torch.from_numpy(image).movedim(-1, 0) / 255 for image in images]
    return {name: value.double() for name, value in EXTRACTOR(pixels, NAMES, None).items()}


def filled(folder, images, **options):
    store = FeatureStore(str(folder))
    store.add(EXTRACTOR, images, NAMES, storage=StoreOptions(**options), batch_size=16)
    return store


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    ("pool", "formula"),
    [
        ("mean", lambda value: value.mean((2, 3), keepdim=True)),
        ("max", lambda value: value.amax((2, 3), keepdim=True)),
        (2, lambda value: value.reshape(*value.shape[:2], 2, 4, 2, 4).mean((3, 5))),
    ],
)
def test_pooling(tmp_path, images, whole, pool, formula, moved):
    store = filled(tmp_path, images, pool=pool, dtype="float32")
    if moved:
        store.compact()
    for name in NAMES:
        torch.testing.assert_close(store.read(name).double(), formula(whole[name]), atol=1e-5, rtol=1e-5)
        assert store.shape(name) == tuple(formula(whole[name]).shape[1:])


def test_principal_components_span_those_of_the_covariance(tmp_path, images, whole):
    store = filled(tmp_path, images, pca=3, dtype="float32")
    samples = whole["first"].movedim(1, -1).reshape(-1, 16).numpy()
    centred = samples - samples.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    main = vectors[:, ::-1][:, :3]
    found = store.read("first").double().movedim(1, -1).reshape(-1, 3).numpy()
    assert store.shape("first") == (3, 8, 8)
    np.testing.assert_allclose(np.abs(found), np.abs(centred @ main), atol=1e-4)


def test_a_store_keeps_its_components_when_images_come(tmp_path, images):
    store = filled(tmp_path / "a", images[:20], pca=3, dtype="float32")
    before = store.read("first")
    store.add(EXTRACTOR, images, NAMES, storage=StoreOptions(pca=3, dtype="float32"), batch_size=16)
    assert torch.equal(store.read("first", range(20)), before)
    assert len(store) == 40


@pytest.mark.parametrize("moved", [False, True])
def test_integers_are_within_half_a_step(tmp_path, images, whole, moved):
    store = filled(tmp_path, images, quantize=True, dtype="float32")
    if moved:
        store.compact()
        assert zarr.open_group(f"{store.url}/features.zarr")["first"].dtype == np.int8
    for name in NAMES:
        step = whole[name].abs().amax((2, 3), keepdim=True) / 127
        assert ((store.read(name).double() - whole[name]).abs() <= 0.5001 * step + 1e-6).all()


def test_all_together_resume(tmp_path, images):
    options = {"pool": 4, "pca": 2, "quantize": True}
    once = filled(tmp_path / "once", images, **options)
    filled(tmp_path / "twice", images, **options).ledger.clear()
    again = filled(tmp_path / "twice", images, **options)
    assert again.read("first").dtype == torch.float16
    assert torch.equal(again.read("first"), once.read("first"))


def test_what_is_kept_is_part_of_the_settings(tmp_path, images):
    store = filled(tmp_path, images, pool="mean")
    with pytest.raises(StoreError, match="holds features of pool 'mean', got 'max'"):
        store.add(EXTRACTOR, images, NAMES, storage=StoreOptions(pool="max"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "sum"}, "pool must be 'mean', 'max' or a number of cells from 1, got 'sum'"),
        ({"pool": 0}, "number of cells from 1, got 0"),
        ({"pca": 0}, "pca must be at least 1, got 0"),
        ({"dtype": "int8"}, "must be 'float16' or 'float32', got 'int8'"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        StoreOptions(**options)


def test_too_many_components_are_refused_and_nothing_is_left(tmp_path, images):
    with pytest.raises(
        ValueError, match="pca must be at most 16 for first, with 16 channels and 2560 samples"
    ):
        filled(tmp_path / "s", images, pca=17)
    assert not (tmp_path / "s").exists()


def described(whole):
    """Vectors of the index, in float64."""
    parts = [whole[name].mean((2, 3)) for name in NAMES]
    parts = [part / part.norm(dim=1, keepdim=True) for part in parts]
    return torch.cat(parts, dim=1) / 2**0.5


@pytest.mark.parametrize("exact", [False, True])
def test_neighbours_are_those_of_the_cosine(tmp_path, images, whole, exact):
    store = filled(tmp_path, images, dtype="float32")
    index = NeighbourIndex(store)
    assert index.update() == 40
    vectors = described(whole)
    cosines = vectors @ vectors.T
    for number in (0, 7, 39):
        vector = index.describe(images[number], lambda: pytest.fail("no model is needed"))
        (found,) = index.find(vector, 5, exact=exact)
        assert found[0].item.row == number
        similarities = torch.tensor([each.similarity for each in found], dtype=torch.float64)
        torch.testing.assert_close(similarities, cosines[number].topk(5).values, atol=2e-3, rtol=0)


def test_the_index_is_kept_and_takes_in_new_images(tmp_path, images):
    store = filled(tmp_path, images[:30])
    assert NeighbourIndex(store).update() == 30
    assert NeighbourIndex(str(tmp_path)).update() == 0
    filled(tmp_path, images)
    index = NeighbourIndex(str(tmp_path))
    assert len(index) == 30
    assert index.update() == 10
    new = np.random.default_rng(9).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (found,) = index.find(index.describe(new, EXTRACTOR), 3, exact=True)
    assert len(found) == 3
    other = Pixels()
    other.dtype = torch.bfloat16
    with pytest.raises(StoreError, match="compute_dtype"):
        index.describe(new, other)


def test_an_index_of_other_images_is_built_anew(tmp_path, images):
    store = filled(tmp_path, images[:10])
    NeighbourIndex(store).update()
    store.add(EXTRACTOR, images[10:20], NAMES, overwrite=True)
    assert NeighbourIndex(str(tmp_path)).update() == 10


def test_mistakes_of_a_search(tmp_path, images):
    with pytest.raises(StoreError, match=r"there is no store at .*: diffeat extract makes one"):
        NeighbourIndex(str(tmp_path / "none"))
    index = NeighbourIndex(filled(tmp_path, images[:3]))
    with pytest.raises(ValueError, match="count must be at least 1"):
        index.find(np.zeros((1, 32), np.float32), 0)
    with pytest.raises(ValueError, match=r"must be \(queries, 32\), got \(1, 3\)"):
        index.find(np.zeros((1, 3), np.float32))
    assert index.find(np.ones((2, 32), np.float32)) == [[], []]
