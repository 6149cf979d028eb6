# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest
import torch
from diffeat import FeatureExtractor
from diffeat.options import ExtractionOptions
from diffeat.store import StoreOptions
from diffeat.store.transformer import FeatureTransformer
from diffusers import StableDiffusionPipeline
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

NAMES = ["mid-repeat0-res-out", "up-level1-repeat0-vit-block0-cross-q"]
OPTIONS = ExtractionOptions(size=32)


@pytest.fixture(scope="module")
def extractor(sd15_folder):
    return FeatureExtractor(StableDiffusionPipeline.from_pretrained(sd15_folder), name="tiny")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(4)]


def test_columns_are_channels(extractor, images):
    transformer = FeatureTransformer(extractor, NAMES, options=OPTIONS).fit(images)
    rows = transformer.transform(images)
    direct = extractor(images, NAMES, OPTIONS)
    expected = torch.cat([direct[name].mean((2, 3)) for name in NAMES], dim=1)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected.numpy(), atol=1e-5)
    names = transformer.get_feature_names_out()
    assert names.shape == (rows.shape[1],)
    assert names[0] == "mid-repeat0-res-out_0"


def test_cells_and_maxima(extractor, images):
    cells = FeatureTransformer(extractor, NAMES[1], pooling="cells", grid=2, options=OPTIONS)
    rows = cells.fit_transform(images)
    value = extractor(images, NAMES[1], OPTIONS)[NAMES[1]]
    names = list(cells.get_feature_names_out())
    assert rows.shape == (4, 4 * value.shape[1]) == (4, len(names))
    column = names.index(f"{NAMES[1]}_3_y1x0")
    np.testing.assert_allclose(rows[:, column], value[:, 3, 1, 0].numpy(), atol=1e-5)
    largest = FeatureTransformer(extractor, NAMES[1], pooling="max", options=OPTIONS).fit_transform(images)
    np.testing.assert_allclose(largest, value.amax((2, 3)).numpy(), atol=1e-5)


def test_clones_share_the_model_and_only_that(extractor, images):
    fitted = FeatureTransformer(extractor, NAMES, options=OPTIONS, grid=3).fit(images)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert copy.model is extractor
    with pytest.raises(NotFittedError):
        copy.transform(images)


@pytest.mark.parametrize("given", ["object", "name"])
def test_a_fitted_transformer_can_be_pickled_and_cloned(extractor, sd15_folder, images, given):
    model = extractor if given == "object" else str(sd15_folder)
    fitted = FeatureTransformer(model, NAMES, options=OPTIONS).fit(images)
    rows = fitted.transform(images)  # a used pipeline holds hooks of transformers, which cannot be pickled
    data = pickle.dumps(fitted)
    assert (len(data) < 10_000) == (given == "name")
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.transform(images), rows)
    assert again.extractor_.name == fitted.extractor_.name
    assert list(again.get_feature_names_out()) == list(fitted.get_feature_names_out())
    np.testing.assert_array_equal(clone(again).fit_transform(images), rows)


def test_an_extractor_alone_can_be_pickled(extractor, images):
    features = extractor(images, NAMES, OPTIONS)
    again = pickle.loads(pickle.dumps(extractor))
    assert (again.name, again.revision, again.dtype) == (extractor.name, None, extractor.dtype)
    for name, value in again(images, NAMES, OPTIONS).items():
        assert torch.equal(value, features[name])


def test_it_is_a_step_of_pipelines(extractor, images):
    steps = make_pipeline(FeatureTransformer(extractor, NAMES[0], options=OPTIONS), LogisticRegression())
    scores = cross_val_score(steps, images * 2, [0, 1, 0, 1] * 2, cv=2)
    assert scores.shape == (2,)
    assert not np.isnan(scores).any()


@pytest.mark.parametrize("given", ["object", "name"])
def test_a_grid_search_never_loads_the_model_again(extractor, sd15_folder, images, monkeypatch, given):
    loaded, load = [], FeatureExtractor.from_pretrained
    monkeypatch.setattr(
        FeatureExtractor,
        "from_pretrained",
        lambda *args, **more: (loaded.append(args), load(*args, **more))[1],
    )
    model = extractor if given == "object" else str(sd15_folder)
    steps = Pipeline(
        [("features", FeatureTransformer(model, NAMES[0], options=OPTIONS)), ("rule", LogisticRegression())]
    )
    choices = {"features__pooling": ["mean", "max"]}
    search = GridSearchCV(steps, choices, cv=2, error_score="raise").fit(images, [0, 1, 0, 1])
    assert search.best_params_.keys() == choices.keys()
    assert len(loaded) == (given == "name")
    assert search.predict(images).shape == (4,)


def test_columns_are_those_of_a_data_frame(extractor, images):
    transformer = FeatureTransformer(extractor, NAMES, options=OPTIONS).set_output(transform="pandas")
    table = transformer.fit_transform(images)
    assert list(table.columns) == list(transformer.get_feature_names_out())
    plain = clone(transformer).set_output(transform="default").fit_transform(images)
    np.testing.assert_array_equal(table.to_numpy(), plain)


def test_a_cache_is_filled_and_read(extractor, images, tmp_path, monkeypatch):
    plain = FeatureTransformer(extractor, NAMES, options=OPTIONS, batch_size=2).fit_transform(images)
    cached = FeatureTransformer(
        extractor,
        NAMES,
        options=OPTIONS,
        batch_size=2,
        cache=str(tmp_path),
        cache_storage=StoreOptions(dtype="float32"),
    ).fit(images)
    np.testing.assert_allclose(cached.transform(images), plain, atol=1e-5)

    def never(*args, **options):
        raise AssertionError

    monkeypatch.setattr(FeatureExtractor, "__call__", never)
    np.testing.assert_allclose(cached.transform(images), plain, atol=1e-5)


def test_mistakes(extractor, images):
    with pytest.raises(ValueError, match="'mean', 'max' or 'cells', got 'sum'"):
        FeatureTransformer(extractor, NAMES, pooling="sum").fit(images)
    with pytest.raises(ValueError, match="grid must be at least 1"):
        FeatureTransformer(extractor, NAMES, grid=0).fit(images)
    with pytest.raises(ValueError, match="at least one image"):
        FeatureTransformer(extractor, NAMES, options=OPTIONS).fit([])
    with pytest.raises(ValueError, match="self-map must be"):
        FeatureTransformer(extractor, "mid-vit-block0-self-map", options=OPTIONS).fit(images)
