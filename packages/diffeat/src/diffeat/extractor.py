# SPDX-License-Identifier: Apache-2.0
"""Features of images: encode, add noise, one pass of the denoiser that stops when it has what was asked."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from diffeat.capture.collect import Collector, Storage
from diffeat.capture.guards import may_stop, original, refuse_caches, uncompiled
from diffeat.capture.hooks import EnoughError, Recorder
from diffeat.capture.maps import MapOptions
from diffeat.capture.select import Names, Request, resolve
from diffeat.denoisers import adapter_for
from diffeat.encode import Posterior, draw_noise, encode_images
from diffeat.features import Features, FeaturesMeta, Noising
from diffeat.images import ImageLike, fit, image_hash, load_images
from diffeat.names.grammar import ActivationName
from diffeat.names.listing import Activation, list_activations
from diffeat.names.sources import denoiser_of, vae_factor
from diffeat.schedule import noising
from diffeat.shipped import located

Dtype = torch.dtype | str


class FeatureExtractor:
    """Takes named activations of a diffusion pipeline as features of images.

    Args:
        pipeline: A diffusers pipeline; it is used as it is and left as it was.
        name: Where it came from, noted in the features.
        revision: Revision it was loaded at, likewise.

    Examples:
        >>> extractor = FeatureExtractor.from_pretrained("path/to/pipeline")  # doctest: +SKIP
        >>> features = extractor("cat.jpg", "Ours-XL", t=50)  # doctest: +SKIP

    Source: arXiv 2410.03558, App. B (protocol); authors' code.
    """

    def __init__(self, pipeline: object, *, name: str | None = None, revision: str | None = None) -> None:
        self.pipeline: Any = pipeline
        self.model: nn.Module = original(denoiser_of(pipeline))
        self.name = name or type(self.model).__name__
        self.revision = revision
        self.adapter = adapter_for(self.model)
        self.factor = vae_factor(pipeline)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | object,
        *,
        device: str | torch.device = "auto",
        dtype: Dtype = "auto",
        revision: str | None = None,
    ) -> Self:
        """Load a pipeline.

        Args:
            source: Folder or hub name of a diffusers pipeline, ``"tiny-sdxl"`` for the one inside this
                package, or a pipeline.
            device: ``"auto"`` takes the first accelerator, and leaves a pipeline where it is.
            dtype: ``"auto"`` takes fp32 on the CPU, else fp16 for U-Nets and bf16 for transformers, and
                leaves a pipeline as it is.
            revision: Of the hub.

        Raises:
            FileNotFoundError: If the model inside this package is missing.
            NotImplementedError: If the pipeline's denoiser cannot be called from here.
        """
        if not isinstance(source, str | Path):
            moves = {"device": device, "dtype": dtype}
            chosen = {key: value for key, value in moves.items() if value != "auto"}
            if chosen:
                cast("Any", source).to(**_resolved(chosen))
            return cls(source)
        import diffusers

        place = _auto_device() if device == "auto" else torch.device(device)
        loader = cast("Any", diffusers).DiffusionPipeline
        place_of_files = located(source)
        index = loader.load_config(place_of_files, revision=revision)
        kind = _auto_dtype(place, index) if dtype == "auto" else _dtype(dtype)
        extra = {"safety_checker": None} if "safety_checker" in index else {}
        with warnings.catch_warnings():
            # the name that every version below 1.0 knows
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            pipeline = loader.from_pretrained(
                place_of_files, revision=revision, torch_dtype=kind, use_safetensors=True, **extra
            )
        return cls(pipeline.to(place), name=str(source), revision=revision)

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes."""
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
        """Height and width in pixels that the model was made for."""
        sample = getattr(getattr(self.model, "config", None), "sample_size", None) or 1024 // self.factor
        sides = tuple(sample) if isinstance(sample, list | tuple) else (sample, sample)
        return int(sides[0]) * self.factor, int(sides[1]) * self.factor

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        names: Names,
        *,
        t: int | Sequence[int] = 50,
        prompt: str | Sequence[str] = "",
        seed: int = 0,
        num_noises: int = 1,
        size: int | tuple[int, int] | None = None,
        posterior: Posterior = "mode",
        batch_size: int = 8,
        maps: MapOptions | None = None,
        storage: Storage | None = None,
    ) -> Features:
        """Extract features.

        Args:
            images: Paths, Pillow images, arrays or tensors in [0, 1].
            names: Names, globs, presets, means of maps or module paths; features come in execution order.
            t: Timestep of the schedule's training steps, or several.
            prompt: For all images, or one per image; may be longer than the text encoder's window.
            seed: Of noise and posterior samples. They depend on the image and not on its place in a batch.
            num_noises: Noises over which features are averaged.
            size: Pixels, a side or ``(height, width)``; ``None`` is the square the model was made for. Images
                are resized to it whatever their aspect ratio.
            posterior: Of the autoencoder: ``"mode"``, or a ``"sample"``, as in the authors' code.
            batch_size: Images per pass.
            maps: Reduction of attention maps.
            storage: Dtype and device of the features; by default they stay as computed.

        Raises:
            LookupError: If a name is unknown.
            RuntimeError: If the model skips blocks by a cache.
            ValueError: If an image, size, timestep or number does not fit.
        """
        request = resolve(self.model, names)
        refuse_caches(self.model)
        loaded = load_images(images)
        prompts = _per_image(prompt, len(loaded))
        pixels = self.size_for(size)
        steps = (t,) if isinstance(t, int) else tuple(t)
        _check_counts(num_noises=num_noises, batch_size=batch_size, timesteps=len(steps))
        if posterior not in {"mode", "sample"}:
            raise ValueError(f"posterior must be 'mode' or 'sample', got {posterior!r}")
        fitted = [fit(image, pixels) for image in loaded]
        hashes = [image_hash(image) for image in fitted]
        times = [
            noising(self.pipeline.scheduler, step, num_tokens=prod(pixels) // (2 * self.factor) ** 2)
            for step in steps
        ]
        batches: list[dict[str, Tensor]] = []
        run = _Run(self, request, maps or MapOptions(), storage or Storage(), num_noises, seed)
        with run.recording():
            for start in range(0, len(fitted), batch_size):
                part = slice(start, start + batch_size)
                latents = encode_images(
                    self.pipeline, torch.stack(fitted[part]), hashes[part], posterior=posterior, seed=seed
                )
                batches.append(run.batch(latents, hashes[part], prompts[part], pixels, times))
        tensors = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        meta = FeaturesMeta(
            noising=tuple(each for each, _ in times),
            prompts=tuple(prompts),
            image_hashes=tuple(hashes),
            seed=seed,
            num_noises=num_noises,
            posterior=posterior,
            size=pixels,
            model=self.name,
            revision=self.revision,
            dtype=str(self.dtype).removeprefix("torch."),
        )
        return Features(tensors, meta)

    def size_for(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """Height and width in pixels that images are resized to.

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


class _Run:
    """One extraction: the recorder and what all its batches share."""

    def __init__(
        self,
        extractor: FeatureExtractor,
        request: Request,
        maps: MapOptions,
        storage: Storage,
        num_noises: int,
        seed: int,
    ) -> None:
        self.extractor = extractor
        self.num_noises = num_noises
        self.seed = seed
        self.storage = storage
        # averages are taken in the dtype of the computation, casting comes last
        self.collector = Collector(
            request, keep="last", storage=Storage(with_grad=storage.with_grad), maps=maps
        )
        self.recorder = Recorder(
            extractor.model,
            request.taps,
            self.collector.take,
            maps=self.collector.options,
            stop_after=lambda call: True,
            can_leave=may_stop(extractor.model),
            gate=self.collector.gate,
            on_start=self.collector.start,
            on_finish=self.collector.finish,
        )

    @contextmanager
    def recording(self) -> Generator[None]:
        """Hooks on, evaluation mode on, gradients as asked; everything as before afterwards."""
        training = [module for module in self.extractor.model.modules() if module.training]
        try:
            self.extractor.model.eval()
            with uncompiled(), self.recorder, torch.set_grad_enabled(self.storage.with_grad):
                yield
        finally:
            for module in training:
                module.training = True

    def batch(
        self,
        latents: Tensor,
        hashes: Sequence[str],
        prompts: Sequence[str],
        size: tuple[int, int],
        times: Sequence[tuple[Noising, Tensor]],
    ) -> dict[str, Tensor]:
        """Features of one batch at all timesteps."""
        extractor = self.extractor
        device, dtype = extractor.device, extractor.dtype
        conditions = extractor.adapter.conditions(extractor.pipeline, prompts, size, device, dtype)
        found: dict[str, Tensor] = {}
        for level, timestep in times:
            end = f"@{level.requested}" if len(times) > 1 else ""
            for name, value in self._ensemble(latents, hashes, conditions, level, timestep).items():
                found[f"{name}{end}"] = self.storage.store(value)
        return found

    def _ensemble(
        self,
        latents: Tensor,
        hashes: Sequence[str],
        conditions: dict[str, Any],
        level: Noising,
        timestep: Tensor,
    ) -> dict[ActivationName, Tensor]:
        """Mean over the noises."""
        sums: dict[ActivationName, Tensor] = {}
        for draw in range(self.num_noises):
            noise = draw_noise(latents.shape[1:], hashes, seed=self.seed, draw=draw).to(latents.device)
            noisy = level.signal * latents + level.noise * noise
            for name, value in self._one_pass(noisy, latents, conditions, timestep).items():
                sums[name] = value if draw == 0 else sums[name] + value
        return (
            {name: value / self.num_noises for name, value in sums.items()} if self.num_noises > 1 else sums
        )

    def _one_pass(
        self, noisy: Tensor, clean: Tensor, conditions: dict[str, Any], timestep: Tensor
    ) -> dict[ActivationName, Tensor]:
        extractor = self.extractor
        adapter, device, dtype = extractor.adapter, extractor.device, extractor.dtype
        stream = noisy if adapter.pack is None else adapter.pack(extractor.model, noisy, clean)
        step = (timestep * adapter.time_scale).to(device)
        inputs = {adapter.stream: stream.to(device, dtype), "timestep": step.expand(len(stream))}
        try:
            extractor.model(**inputs, **conditions)
        except EnoughError as enough:
            if enough.args != (self.recorder,):
                raise
        if self.recorder.missing:
            missing = ", ".join(map(str, self.recorder.missing))
            raise RuntimeError(f"{type(extractor.model).__name__} never computed {missing} in this call")
        return self.collector.calls[self.recorder.call]


def _per_image(prompt: str | Sequence[str], count: int) -> list[str]:
    prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
    if len(prompts) != count:
        raise ValueError(f"prompt must be one text or one per image, got {len(prompts)} for {count} images")
    return prompts


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def _auto_device() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def _auto_dtype(device: torch.device, index: dict[str, Any]) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if "transformer" in index else torch.float16


def _dtype(dtype: Dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype must be a floating torch dtype such as 'float16', got {dtype!r}")
    return found


def _resolved(moves: dict[str, Any]) -> dict[str, Any]:
    return {key: _dtype(value) if key == "dtype" else torch.device(value) for key, value in moves.items()}
