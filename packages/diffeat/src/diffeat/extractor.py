# SPDX-License-Identifier: Apache-2.0
"""Features of images: encode, add noise, one pass of the denoiser that stops after the last activation.

An extraction in the order in which it runs: names become taps (``names.request``), images become tensors
(``images``) and latents (``encode``), a timestep becomes factors of signal and noise (``schedule``), prompts
become conditions (``denoisers``), and the denoiser runs under hooks (``hooks.recorder``) that hand its
activations to a collector (``hooks.collector``). This file calls them one after the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from math import prod, sqrt
from pathlib import Path
from typing import Any, Self, Unpack, cast

import torch
from common_kernels.runtime.hub import DType, HubOptions, resolve_device, resolve_dtype
from torch import Tensor, nn

from diffeat.denoisers import adapter_for
from diffeat.encode import draw_noise, encode_images
from diffeat.features import Features, FeaturesMeta
from diffeat.hooks.collector import Collector, Storage
from diffeat.hooks.guards import refuse_caches, uncompiled
from diffeat.hooks.recorder import Recorder, StopForward
from diffeat.images import ImageLike, count_images, fit, image_hash, load_images
from diffeat.inversion import invert, prediction_type, rising
from diffeat.names.grammar import ActivationName, Names
from diffeat.names.listing import Activation, list_activations
from diffeat.names.request import Request, resolve
from diffeat.names.sources import denoiser_of, vae_factor
from diffeat.options import ExtractionOptions
from diffeat.packing import PackedPipeline
from diffeat.schedule import NoiseLevel, noise_level
from diffeat.shipped import find_pipeline


class FeatureExtractor:
    """Extracts named activations of a diffusion pipeline as features of images.

    An extractor can be pickled; its weights are written, so name folders where many processes work.

    Args:
        pipeline: A diffusers pipeline; it is not changed.
        name: Name of the pipeline, recorded in the features.
        revision: Revision of the pipeline, recorded in the features.

    Examples:
        >>> extractor = FeatureExtractor.from_pretrained("path/to/pipeline")  # doctest: +SKIP
        >>> features = extractor("cat.jpg", "Ours-XL", ExtractionOptions(timesteps=(50,)))  # doctest: +SKIP

    Source: arXiv 2410.03558, App. B (protocol); authors' code.
    """

    def __init__(self, pipeline: object, *, name: str | None = None, revision: str | None = None) -> None:
        self.pipeline: Any = pipeline
        self.model: nn.Module = denoiser_of(pipeline)
        self.name = name or type(self.model).__name__
        self.revision = revision
        self.adapter = adapter_for(self.model)
        self.factor = vae_factor(pipeline)

    def __reduce__(self) -> tuple[Any, ...]:
        packed = PackedPipeline.of(self.pipeline, self.device)
        return _unpacked, (type(self), packed, self.name, self.revision)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | object,
        *,
        device: str | torch.device = "auto",
        dtype: DType | torch.dtype = "auto",
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load a pipeline.

        Args:
            source: Folder or hub id of a diffusers pipeline, ``"tiny-sdxl"`` for the one inside this
                package, or a pipeline.
            device: Device to run on; ``"auto"`` is the accelerator if there is one, and leaves a pipeline
                where it is.
            dtype: Compute dtype; ``"auto"`` is float32 on the CPU, else float16 for U-Nets and bfloat16 for
                transformers, and leaves a pipeline as it is.
            **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``.

        Raises:
            ModelNotFoundError: If there is no such pipeline.
            NotImplementedError: If the pipeline's denoiser cannot be called from here.
            ValueError: If the device is not present or the dtype unknown.
        """
        if not isinstance(source, str | Path):
            chosen: dict[str, Any] = {}
            if device != "auto":
                chosen["device"] = resolve_device(device)
            if dtype != "auto":
                chosen["dtype"] = resolve_dtype(dtype)
            if chosen:
                cast("Any", source).to(**chosen)
            return cls(source)
        target = resolve_device(device)
        place = find_pipeline(source, **hub)
        import diffusers

        loader = cast("Any", diffusers).DiffusionPipeline
        index = loader.load_config(place, **hub)
        default: DType = "bfloat16" if "transformer" in index else "float16"
        extra = {"safety_checker": None} if "safety_checker" in index else {}
        with warnings.catch_warnings():
            # the argument's name in every version below 1.0
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            # users cannot change how diffusers calls the hub
            warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
            pipeline = loader.from_pretrained(
                place,
                **hub,
                torch_dtype=resolve_dtype(dtype, target, cuda_default=default),
                use_safetensors=True,
                **extra,
            )
        return cls(pipeline.to(target), name=str(source), revision=hub.get("revision"))

    @property
    def device(self) -> torch.device:
        """Device of the denoiser."""
        return torch.device(getattr(self.pipeline, "_execution_device", None) or self._weight.device)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the denoiser's input."""
        return getattr(self.model, "dtype", self._weight.dtype)

    @property
    def _weight(self) -> Tensor:
        return next(self.model.parameters())

    def list_activations(self, **options: Any) -> list[Activation]:
        """List this model's activations, see :func:`diffeat.list_activations`."""
        return list_activations(self.pipeline, **options)

    def native_size(self) -> tuple[int, int]:
        """Native height and width of the model in pixels."""
        sample = getattr(getattr(self.model, "config", None), "sample_size", None) or 1024 // self.factor
        sides = tuple(sample) if isinstance(sample, list | tuple) else (sample, sample)
        return int(sides[0]) * self.factor, int(sides[1]) * self.factor

    def size_for(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """Return height and width in pixels to which images are resized.

        Args:
            size: A side or ``(height, width)``; ``None`` is the model's own.

        Raises:
            ValueError: If the model cannot take it.
        """
        if size is None:
            return self.native_size()
        height, width = (size, size) if isinstance(size, int) else size
        step = self.factor * self.adapter.cells(self.model)
        if min(height, width) < step or height % step or width % step:
            raise ValueError(
                f"size must be a positive multiple of {step} pixels both ways, got {height}x{width}"
            )
        return height, width

    def size_like(self, image: tuple[int, int], size: int | tuple[int, int] | None) -> tuple[int, int]:
        """Return height and width with the aspect ratio of an image, up to the steps that the model takes.

        Args:
            image: Height and width of the image.
            size: Size whose number of pixels is kept.

        Raises:
            ValueError: If the model cannot take the size.
        """
        step = self.factor * self.adapter.cells(self.model)
        scale = sqrt(prod(self.size_for(size)) / prod(image)) / step
        height, width = (max(1, round(side * scale)) * step for side in image)
        return height, width

    def noise_levels(self, options: ExtractionOptions) -> tuple[NoiseLevel, ...]:
        """Return the noise of the denoiser's input at each timestep of the options.

        Raises:
            ValueError: If the model cannot take the size or a timestep.
        """
        num_tokens = prod(self.size_for(options.size)) // (2 * self.factor) ** 2
        scheduler = self.pipeline.scheduler
        return tuple(
            noise_level(scheduler, each, num_tokens=num_tokens, is_clean=options.noise == "none")
            for each in options.timesteps
        )

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        names: Names,
        options: ExtractionOptions | None = None,
        *,
        batch_size: int = 8,
        storage: Storage | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Features:
        """Extract features.

        Args:
            images: Paths, Pillow images, arrays or tensors in [0, 1].
            names: Names, globs, presets, means of maps or module paths; features come in execution order.
            options: Timesteps, prompt, size and so on; the defaults if ``None``.
            batch_size: Images per pass of the denoiser.
            storage: Dtype and device of the features; by default they stay as computed.
            on_batch: Called after each pass with images done and all images.

        Raises:
            LookupError: If a name is unknown.
            RuntimeError: If the model skips blocks by a cache.
            ValueError: If an image, size, timestep or number does not fit.
        """
        options, storage = options or ExtractionOptions(), storage or Storage()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        request = resolve(self.model, names)
        refuse_caches(self.model)
        count, size = count_images(images), self.size_for(options.size)
        prompts, loaded = options.prompts(count), load_images(images)
        hashes: list[str] = []
        levels: tuple[NoiseLevel, ...] = ()
        denoiser: _HookedDenoiser | None = None
        found: dict[str, list[Tensor]] = {}
        # images are decoded batch by batch, as they are needed
        while part := list(islice(loaded, batch_size)):
            if options.keep_aspect:
                size = self._common_size(part, options.size, size if hashes else None)
            if denoiser is None:
                options = replace(options, size=size, prompt=prompts)
                levels = self.noise_levels(options)
                denoiser = _HookedDenoiser(self, request, options, with_grad=storage.with_grad)
            batch = _Batch.of(part, size, prompts[len(hashes) :])
            for name, value in self._extract(denoiser, batch, options, levels).items():
                found.setdefault(name, []).append(storage.store(value))
            hashes += batch.hashes
            if on_batch is not None:
                on_batch(len(hashes), count)
        meta = FeaturesMeta(
            options=options,
            noise_levels=levels,
            image_hashes=tuple(hashes),
            model=self.name,
            revision=self.revision,
            dtype=str(self.dtype).removeprefix("torch."),
        )
        return Features({name: torch.cat(each) for name, each in found.items()}, meta)

    def _common_size(
        self,
        images: Sequence[Tensor],
        size: int | tuple[int, int] | None,
        known: tuple[int, int] | None,
    ) -> tuple[int, int]:
        """The one size of images that keep their aspect ratio.

        Raises:
            ValueError: If they have several.
        """
        sizes = {self.size_like((image.shape[1], image.shape[2]), size) for image in images}
        sizes |= set() if known is None else {known}
        if len(sizes) > 1:
            listed = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
            raise ValueError(
                f"images of one call must have one size, got {listed}: extract images of different aspect "
                "ratios one by one, or without keep_aspect"
            )
        return sizes.pop()

    def _extract(
        self,
        denoiser: _HookedDenoiser,
        batch: _Batch,
        options: ExtractionOptions,
        levels: Sequence[NoiseLevel],
    ) -> dict[str, Tensor]:
        """Features of one batch at all timesteps, averaged over the noises."""
        seed, size = options.seed, (batch.images.shape[2], batch.images.shape[3])
        latents = encode_images(
            self.pipeline, batch.images, batch.hashes, posterior=options.posterior, seed=seed
        )
        conditions = self.adapter.conditions(self.pipeline, batch.prompts, size, self.device, self.dtype)
        found: dict[str, Tensor] = {}
        for level in levels:
            sums: dict[ActivationName, Tensor] = {}
            for draw in range(options.num_noises):
                if options.noise == "inverted":
                    noisy = self._invert(denoiser, latents, conditions, level, options)
                else:
                    noise = draw_noise(latents.shape[1:], batch.hashes, seed=seed, draw=draw)
                    noisy = level.signal * latents + level.noise * noise.to(latents.device)
                for name, value in denoiser(noisy, latents, conditions, level).items():
                    sums[name] = value if draw == 0 else sums[name] + value
            end = f"@{level.timestep}" if len(levels) > 1 else ""
            for name, value in sums.items():
                found[f"{name}{end}"] = value / options.num_noises if options.num_noises > 1 else value
        return found

    def _invert(
        self,
        denoiser: _HookedDenoiser,
        latents: Tensor,
        conditions: dict[str, Any],
        level: NoiseLevel,
        options: ExtractionOptions,
    ) -> Tensor:
        """Latents of one level by inversion."""
        scheduler, sign = self.pipeline.scheduler, self.adapter.sign

        def predict(noisy: Tensor, at: NoiseLevel) -> Tensor:
            output = denoiser.predict(noisy, latents, conditions, at)
            if output.shape[1] == 2 * noisy.shape[1]:
                output = output.chunk(2, dim=1)[0]  # the other half is a variance
            if output.shape != noisy.shape:
                raise NotImplementedError(
                    f"inversion needs a denoiser whose output has the shape of the latent, which that of "
                    f"{type(self.model).__name__} has not: it is {tuple(output.shape)}"
                )
            return sign * output.to(noisy)

        path = rising(level.timestep, options.inversion_steps)
        levels = self.noise_levels(replace(options, timesteps=path))
        with torch.no_grad():
            return invert(latents, levels, predict, prediction_type(scheduler))


def _unpacked(
    kind: type[FeatureExtractor], packed: PackedPipeline, name: str, revision: str | None
) -> FeatureExtractor:
    """Rebuild a pickled extractor."""
    return kind(packed.unpack(), name=name, revision=revision)


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """Set evaluation mode and restore the previous one."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images of one pass, ``(B, 3, H, W)``, with their hashes and prompts."""

    images: Tensor
    hashes: Sequence[str]
    prompts: Sequence[str]

    @classmethod
    def of(cls, images: Sequence[Tensor], size: tuple[int, int], prompts: Sequence[str]) -> Self:
        """Images brought to one size, with the first of the prompts."""
        fitted = [fit(image, size) for image in images]
        return cls(torch.stack(fitted), [image_hash(image) for image in fitted], prompts[: len(fitted)])


class _HookedDenoiser:
    """The denoiser of an extractor, with and without hooks, for all passes of one extraction."""

    def __init__(
        self, extractor: FeatureExtractor, request: Request, options: ExtractionOptions, *, with_grad: bool
    ) -> None:
        self._extractor = extractor
        self._with_grad = with_grad
        # averages are computed in the compute dtype and cast last
        self._collector = Collector(
            request, keep="last", storage=Storage(with_grad=with_grad), maps=options.maps
        )
        self._recorder = Recorder(extractor.model, request.taps, self._collector, stop_after="each")

    def predict(self, noisy: Tensor, clean: Tensor, conditions: dict[str, Any], level: NoiseLevel) -> Tensor:
        """Output of one whole pass over noisy latents, without hooks."""
        return self._run(noisy, clean, conditions, level)[0]

    def __call__(
        self, noisy: Tensor, clean: Tensor, conditions: dict[str, Any], level: NoiseLevel
    ) -> dict[ActivationName, Tensor]:
        """Activations of one pass over noisy latents."""
        recorder = self._recorder
        try:
            with uncompiled(), recorder, torch.set_grad_enabled(self._with_grad):
                self._run(noisy, clean, conditions, level)
        except StopForward as stop:
            if stop.args != (recorder,):
                raise
        if recorder.missing:
            missing = ", ".join(map(str, recorder.missing))
            name = type(self._extractor.model).__name__
            raise RuntimeError(f"{name} never computed {missing} in this call")
        return self._collector.calls[recorder.call]

    def _run(
        self, noisy: Tensor, clean: Tensor, conditions: dict[str, Any], level: NoiseLevel
    ) -> tuple[Tensor, ...]:
        extractor = self._extractor
        adapter, device = extractor.adapter, extractor.device
        noisy, clean = (latent.to(device, extractor.dtype) for latent in (noisy, clean))
        stream = noisy if adapter.pack is None else adapter.pack(extractor.model, noisy, clean)
        time = level.effective if adapter.time is None else adapter.time(extractor.model, level.effective)
        step = torch.tensor(time, device=device, dtype=extractor.dtype if adapter.is_time_cast else None)
        inputs = {adapter.stream: stream, adapter.clock: step.expand(len(stream))}
        with _evaluating(extractor.model):
            return extractor.model(**inputs, **conditions, return_dict=False)
