# SPDX-License-Identifier: Apache-2.0
"""Name the classes, get the segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from common_kernels.runtime.hub import DType, HubOptions
from torch import Tensor, nn

from itaclip.attention.registry import build_attention
from itaclip.attention.splice import build_windows
from itaclip.config import ITACLIPConfig
from itaclip.encoder import AttentionStrategy, build_encoder
from itaclip.features import Prepared, Progress, WindowMaps, text_scores
from itaclip.inputs import ImageLike, Normalizer, to_list
from itaclip.labels import Decision
from itaclip.loading import load_clip
from itaclip.results import Segmentation
from itaclip.text.classes import ClassList
from itaclip.text.prompts import Templates
from itaclip.text.sources import AuxTexts, aux_texts
from itaclip.windows import WindowMerger


class ITACLIP:
    """Segments images by classes given in words, with a CLIP model and no training.

    Args:
        model: An open_clip model with a vision transformer, in evaluation mode; it is not changed.
        tokenizer: Its tokenizer.
        config: Configuration; the preset ``"itaclip"`` if ``None``.
        cache: Folder of cached text features; ``"auto"`` is :func:`itaclip.text.default_cache`, ``None``
            caches nothing.
        attention: Attention of the last block; the one that the configuration names if ``None``.

    Example:
        >>> segmenter = ITACLIP.from_pretrained("tiny-shapes")  # doctest: +SKIP
        >>> segmenter.set_classes(["red", "blue"], background=["grass"])  # doctest: +SKIP
        >>> segmenter.predict(image).labels.shape  # doctest: +SKIP
        torch.Size([64, 64])

    Source: ITACLIP, arXiv 2411.12044.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        config: ITACLIPConfig | None = None,
        *,
        cache: str | Path | None = None,
        attention: AttentionStrategy | None = None,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.config = ITACLIPConfig.preset("itaclip") if config is None else config
        self.cache = cache
        self.encoder = build_encoder(model)
        self.windows = build_windows(self.encoder, Normalizer(model), self.config, attention)
        self._list: ClassList | None = None
        self._text: Tensor | None = None

    @classmethod
    def from_pretrained(
        cls,
        backbone: str | Path,
        *,
        preset: str | ITACLIPConfig = "auto",
        dataset: str | None = None,
        pretrained: str | None = None,
        quick_gelu: bool | None = None,
        device: str | torch.device = "auto",
        dtype: DType | torch.dtype = "auto",
        cache: str | Path | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load a CLIP model by name, folder or hub id.

        Args:
            backbone: ``"tiny-shapes"`` (shipped), a folder in the format of open_clip or of transformers, a
                hub id, or open_clip's name of an architecture together with ``pretrained``.
            preset: Method, as for :meth:`ITACLIPConfig.preset`, or a configuration; ``"auto"`` is
                ``"tiny-shapes"`` for the shipped backbone, else ``"itaclip"``.
            dataset: Data set whose published settings the method takes; not with a configuration.
            pretrained: Tag or ``.safetensors`` file of an architecture's weights.
            quick_gelu: QuickGELU in both towers; ``None`` for what the model's own configuration says.
            device: ``"auto"`` takes the accelerator if there is one.
            dtype: ``"auto"`` is fp16 on CUDA, else fp32.
            cache: Folder of cached text features, as for the class.
            **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and ``force_download``.

        Raises:
            ModelNotFoundError: If there is no such model or its files cannot be used.
            NotImplementedError: If its image tower is no vision transformer.
            ValueError: If the preset, data set, device or dtype is unknown, or the weights need another
                activation.
        """
        if isinstance(preset, str):
            own = "tiny-shapes" if str(backbone) == "tiny-shapes" else "itaclip"
            preset = ITACLIPConfig.preset(own if preset == "auto" else preset, dataset=dataset)
        elif dataset is not None:
            raise ValueError(f"a configuration is complete: leave out dataset={dataset!r}")
        attention = build_attention(preset.attention)
        attention.load()  # other models first: what is missing is told before CLIP, the larger one, is loaded
        model, tokenizer = load_clip(
            backbone, pretrained=pretrained, quick_gelu=quick_gelu, device=device, dtype=dtype, **hub
        )
        return cls(model, tokenizer, preset, cache=cache, attention=attention)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Display names of the classes, the background first if there is one; empty before they are set."""
        return () if self._list is None else self._list.labels

    @property
    def classes(self) -> ClassList:
        """Classes to segment.

        Raises:
            RuntimeError: If no classes were set.
        """
        if self._list is None:
            raise RuntimeError("no classes: call set_classes first")
        return self._list

    @property
    def text_features(self) -> Tensor:
        """Embeddings of the names of all classes, ``(names, D)``, fp32.

        Raises:
            RuntimeError: If no classes were set.
        """
        if self._text is None:
            raise RuntimeError("no classes: call set_classes first")
        return self._text

    def set_classes(
        self,
        classes: Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str] | None] | ClassList,
        *,
        background: str | Sequence[str] | None = None,
        aux: AuxTexts = None,
        templates: Templates | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Set the classes to segment; encodes the texts.

        Args:
            classes: Names; or a mapping from display names to further names of the same class; or a list.
            background: Names for what is none of the classes; they become class 0.
            aux: Definitions or synonyms of the classes, mixed in with the weight ``alpha``; whatever
                :func:`itaclip.text.as_source` takes: a source, a mapping from names to a text or several, a
                function of a name, a file, or the name of texts inside this package such as
                ``"definitions"``.
            templates: Prompt templates, each with ``{}`` once, or the name of a set; those of the
                configuration if ``None``.
            progress: Called with names and texts embedded, and all there are.

        Returns:
            The object itself.

        Raises:
            ValueError: If a name is empty or given twice, no class is left, a prompt is too long for the text
                tower, a class has no auxiliary text, or a template has not one ``{}``.
        """
        from itaclip.text.embed import text_features

        chosen = ClassList.build(classes, background=background)
        features = text_features(
            self.model,
            self.tokenizer,
            chosen,
            aux_texts(aux, chosen),
            self.config.alpha,
            templates=self.config.templates if templates is None else templates,
            cache=self.cache,
            progress=progress,
        )
        return self.set_text_features(features, chosen)

    def set_text_features(self, features: Tensor, classes: ClassList) -> Self:
        """Set classes whose names were embedded elsewhere.

        Args:
            features: ``(names, D)``.
            classes: Their classes.

        Returns:
            The object itself.

        Raises:
            ValueError: If their number differs from the number of names.
        """
        if features.ndim != 2 or len(features) != len(classes.names):
            raise ValueError(
                f"features must be ({len(classes.names)}, D), one row per name, got {tuple(features.shape)}"
            )
        self._text = features.detach().to(self.encoder.device, torch.float32)
        self._list = classes
        return self

    def predict(
        self, images: object, *, return_scores: bool = False, progress: Progress | None = None
    ) -> Segmentation | list[Segmentation]:
        """Segment one image or several.

        Args:
            images: A Pillow image, an array ``(H, W, 3)`` or a tensor ``(3, H, W)``, a batch of either, or a
                sequence of any of these; see :func:`itaclip.inputs.to_tensor`.
            return_scores: Whether to keep the probabilities of all classes.
            progress: Called with windows done and windows in total, from 0 for every group of images.

        Returns:
            One result for one image, else a list.

        Raises:
            RuntimeError: If no classes were set.
            TypeError: If an image is of no known kind.
            ValueError: If an image is empty or not finite.
        """
        items, single = to_list(images)
        results = list(self.stream(items, return_scores=return_scores, progress=progress))
        return results[0] if single else results

    def stream(
        self,
        images: Sequence[ImageLike],
        *,
        return_scores: bool = False,
        progress: Progress | None = None,
    ) -> Iterator[Segmentation]:
        """Yield one result per image, in order; memory does not grow with their number.

        Args:
            images: Images, as for :meth:`predict`.
            return_scores: Whether to keep the probabilities of all classes.
            progress: Callback, as for :meth:`predict`.
        """
        classes, reduce = self.classes, text_scores(self.text_features)
        for group in self._groups(images):
            with torch.inference_mode():
                encoded = self.windows.encode(group, reduce, progress)
                for prepared, maps in zip(group, encoded, strict=True):
                    decision = Decision(prepared, self.adjust_scores(prepared, maps), self.config)
                    found = decision.segment(classes, return_scores=return_scores)
                    yield found if prepared.regions is None else found.by_regions(prepared.regions)

    @torch.inference_mode()
    def scores(self, image: ImageLike) -> Tensor:
        """Return the similarity of every pixel with every name, after refinement.

        Args:
            image: One image.

        Returns:
            ``(names, H, W)``, fp32, not yet scaled; large, as it holds all names at once.
        """
        text = self.text_features
        prepared = self.windows.prepare(image)
        (maps,) = self.windows.encode([prepared], text_scores(text))
        decision = Decision(prepared, self.adjust_scores(prepared, maps), self.config)
        (scores,) = decision.name_scores(0, prepared.size[0], [(0, len(text))])
        return scores

    @torch.inference_mode()
    def features(self, image: ImageLike) -> Tensor:
        """Return features in the space of the texts, one per patch of the resized image.

        Args:
            image: One image.

        Returns:
            ``(D, height, width)``, fp32, averaged over branches and windows, not normalised.
        """
        prepared = self.windows.prepare(image)
        (maps,) = self.windows.encode([prepared], lambda features: features)
        sides = zip(prepared.image.shape[-2:], self.encoder.patch_size, strict=True)
        height, width = (side // patch for side, patch in sides)
        direct, device = not self.config.crop, prepared.image.device
        merger = WindowMerger(prepared.plan, maps.grid, (height, width), direct=direct, device=device)
        return merger.merge(maps.values)

    def adjust_scores(self, prepared: Prepared, scores: WindowMaps) -> WindowMaps:
        """Return the scores of an image's windows as they go into merging and refinement.

        The extension point of subclasses that know more about an image than its patches; as it stands, the
        scores are returned unchanged.

        Args:
            prepared: The image, from ``self.windows.prepare``.
            scores: Cosine similarities with ``self.text_features``, a map per name, not yet scaled.
        """
        return scores

    def _groups(self, images: Sequence[ImageLike]) -> Iterator[list[Prepared]]:
        """Group images until their windows fill a pass of the tower."""
        group: list[Prepared] = []
        for image in images:
            group.append(self.windows.prepare(image))
            if sum(len(prepared.plan) for prepared in group) >= self.windows.windows_at_once:
                yield group
                group = []
        if group:
            yield group
