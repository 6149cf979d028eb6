# SPDX-License-Identifier: Apache-2.0
"""Diffusion features as a step of a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.nn import functional as F

from diffeat.extractor import FeatureExtractor
from diffeat.images import ImageLike
from diffeat.names.grammar import Names
from diffeat.options import ExtractionOptions
from diffeat.store.options import StoreOptions
from diffeat.store.store import FeatureStore

Pooling = Literal["mean", "max", "cells"]


class FeatureTransformer(TransformerMixin, BaseEstimator):
    """Turns images into rows of features.

    Nothing is learned from images: ``fit`` loads the model and finds out the names of the columns from its
    config. Copies by ``sklearn.base.clone`` share the model, also one that was passed by name once it is
    loaded: a search over parameters loads it once in a process. Pickled, a model that
    was passed by name stays a name and is loaded again where it is used; with one that was passed as an
    object the weights are written, so pass names where many processes work.

    Args:
        model: A :class:`~diffeat.FeatureExtractor`, or the folder or hub id of a pipeline.
        names: Names, globs or presets.
        pooling: ``"mean"`` or ``"max"`` over the image gives a column per channel; ``"cells"`` averages each
            cell of a grid and gives a column per cell and channel.
        grid: Cells per side of the grid of ``"cells"``.
        options: Options of the extraction, with one prompt for all images; the defaults if ``None``.
        batch_size: Images per pass.
        cache: Folder or address under which features are kept and looked up; none if ``None``.
        cache_storage: What is kept of the features under ``cache``; half precision if ``None``.

    Attributes:
        extractor_: The model.
        names_: Activations, in execution order.

    Examples:
        >>> from sklearn.linear_model import LogisticRegression  # doctest: +SKIP
        >>> steps = make_pipeline(FeatureTransformer("folder", "Ours-XL"), LogisticRegression())
        ... # doctest: +SKIP
        >>> steps.fit(images, classes)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: FeatureExtractor | str,
        names: Names,
        *,
        pooling: Pooling = "mean",
        grid: int = 4,
        options: ExtractionOptions | None = None,
        batch_size: int = 8,
        cache: str | None = None,
        cache_storage: StoreOptions | None = None,
    ) -> None:
        self.model = model
        self.names = names
        self.pooling: Pooling = pooling
        self.grid = grid
        self.options = options
        self.batch_size = batch_size
        self.cache = cache
        self.cache_storage = cache_storage

    def __sklearn_clone__(self) -> Self:
        # a deep copy of the parameters, which is the default, would copy the model's weights
        copy = type(self)(**self.get_params(deep=False))
        # a search clones what it was given, which is not fitted, for every fit
        copy._loaded = self._loaded = getattr(self, "_loaded", {})
        return copy

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(cast("Any", super().__getstate__()))
        for name in ("extractor_", "_loaded"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        cast("Any", super()).__setstate__(state)
        if hasattr(self, "names_"):
            self.extractor_ = self._load()

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.no_validation = True
        tags.target_tags.required = False
        return tags

    def fit(self, X: Sequence[ImageLike], y: object = None) -> Self:
        """Load the model and find the columns.

        Args:
            X: Images; only their presence is checked.
            y: Not used.

        Raises:
            LookupError: If a name is unknown.
            ValueError: If a parameter does not fit, or an activation has no channels on the image.
        """
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be 'mean', 'max' or 'cells', got {self.pooling!r}")
        if self.grid < 1:
            raise ValueError(f"grid must be at least 1, got {self.grid}")
        _check_images(X)
        self.extractor_: FeatureExtractor = self._load()
        values = self._extract(list(X[:1]))
        for name, value in values.items():
            if value.ndim != 4:
                raise ValueError(f"{name} must be (batch, channels, height, width), got {tuple(value.shape)}")
        self.names_ = list(values)
        self._channels = {name: value.shape[1] for name, value in values.items()}
        return self

    def transform(self, X: Sequence[ImageLike]) -> NDArray[np.float32]:
        """Features of images.

        Args:
            X: Paths, Pillow images, arrays or tensors.

        Returns:
            ``(images, columns)``, fp32.
        """
        check_is_fitted(self)
        _check_images(X)
        rows: list[Tensor] = []
        for start in range(0, len(X), self.batch_size):
            values = self._extract(list(X[start : start + self.batch_size]))
            rows.append(torch.cat([self._pooled(values[name]) for name in self.names_], dim=1))
        return torch.cat(rows).numpy()

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the columns: activation and channel, with row and column of the cell if there are cells.

        Args:
            input_features: Not used.
        """
        check_is_fitted(self)
        cells = [f"_y{y}x{x}" for y in range(self.grid) for x in range(self.grid)]
        ends = cells if self.pooling == "cells" else [""]
        return np.array(
            [
                f"{name}_{channel}{end}"
                for name in self.names_
                for channel in range(self._channels[name])
                for end in ends
            ],
            dtype=object,
        )

    def _load(self) -> FeatureExtractor:
        model = self.model
        if isinstance(model, FeatureExtractor):
            return model
        loaded: dict[str, FeatureExtractor] = getattr(self, "_loaded", {})
        if model not in loaded:
            loaded.clear()  # one model at a time
            loaded[model] = FeatureExtractor.from_pretrained(model)
        self._loaded = loaded
        return loaded[model]

    def _extract(self, images: list[ImageLike]) -> dict[str, Tensor]:
        options = self.options or ExtractionOptions()
        if self.cache is None:
            features = self.extractor_(images, self.names, options, batch_size=self.batch_size)
            return {name: value.float().cpu() for name, value in features.items()}
        storage = self.cache_storage
        store = FeatureStore.cached(self.cache, self.extractor_, options, storage=storage)
        store.add(self.extractor_, images, self.names, options, storage=storage, batch_size=self.batch_size)
        rows = store.find(images, options.prompts(len(images)))
        wanted = self.names if not hasattr(self, "names_") else self.names_
        return {name: value.float() for name, value in store.features(rows, wanted).items()}

    def _pooled(self, value: Tensor) -> Tensor:
        if self.pooling == "mean":
            return value.mean((2, 3))
        if self.pooling == "max":
            return value.amax((2, 3))
        return F.adaptive_avg_pool2d(value, self.grid).flatten(1)  # (B, C * grid * grid)


def _check_images(images: Sequence[ImageLike]) -> None:
    if isinstance(images, str | Path) or not len(images):
        raise ValueError("X must be a sequence of at least one image")
