# SPDX-License-Identifier: Apache-2.0
"""Options of extraction, ranking and segmentation, checked when they are made; this module loads no torch."""

# no annotations from __future__: cyclopts would look up inherited ones in the module of a subclass
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, cast

__all__ = [
    "ExtractionOptions",
    "MapOptions",
    "RankingOptions",
    "SegmentationOptions",
    "TrainingOptions",
]

ProbeName = Literal["logistic", "mlp"]
Absent = Literal["skip", "zero"]
Noise = Literal["random", "none", "inverted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOptions:
    """Reduction of attention maps.

    Attributes:
        heads: Attention heads kept: all, their mean, or the indices of some.
        tokens: Indices of the keys kept, such as those of one word of the prompt; all by default. Rows are
            normalised over all keys first, so kept columns are shares of the whole attention.
        chunk: Number of queries per step; by default as many as have about 16 MiB of scores.
    """

    heads: Literal["all", "mean"] | tuple[int, ...] = "all"
    tokens: tuple[int, ...] | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.heads, str) and self.heads not in {"all", "mean"}:
            raise ValueError(f"heads must be 'all', 'mean' or a tuple of indices, got {self.heads!r}")
        if self.chunk is not None:
            _check_least(1, chunk=self.chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionOptions:
    """Options of an extraction: all that features depend on besides image, model and names.

    Attributes:
        timesteps: Timesteps of the training schedule.
        prompt: Prompt of all images, or one per image; it may exceed the window of a CLIP text encoder.
        size: Image size in pixels before the model, a side or height and width; by default the native square
            of the model. Images are resized to it ignoring their aspect ratio.
        keep_aspect: Whether the size says only the number of pixels: each image keeps its aspect ratio, up to
            the nearest size that the model takes.
        seed: Random seed of noise and posterior samples, which depend on the image and not on its batch.
        num_noises: Number of noises over which features are averaged.
        noise: Noise of the denoiser's input: random; none, so that a clean latent meets the timestep; or
            inverted, what the model itself sees in the image, which takes more passes.
        inversion_steps: Passes of an inversion, at most the timestep.
        posterior: Latent taken of the autoencoder: the mode of its posterior, or a sample as in the authors'
            code.
        maps: Reduction of attention maps.
    """

    timesteps: tuple[int, ...] = (50,)
    prompt: str | tuple[str, ...] = ""
    size: int | tuple[int, int] | None = None
    keep_aspect: bool = False
    seed: int = 0
    num_noises: int = 1
    noise: Noise = "random"
    inversion_steps: int = 10
    posterior: Literal["mode", "sample"] = "mode"
    maps: MapOptions = field(default_factory=MapOptions)

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.timesteps), tuple) or not self.timesteps:
            raise ValueError(
                f"timesteps must be a tuple of at least one timestep, such as (50,), got {self.timesteps!r}"
            )
        _check_least(1, num_noises=self.num_noises, inversion_steps=self.inversion_steps)
        if self.noise not in {"random", "none", "inverted"}:
            raise ValueError(f"noise must be 'random', 'none' or 'inverted', got {self.noise!r}")
        if self.noise != "random" and self.num_noises > 1:
            raise ValueError(f"num_noises must be 1 unless noise is 'random', got {self.num_noises}")
        if self.posterior not in {"mode", "sample"}:
            raise ValueError(f"posterior must be 'mode' or 'sample', got {self.posterior!r}")

    def prompts(self, count: int) -> tuple[str, ...]:
        """Return the prompt of each of ``count`` images.

        Raises:
            ValueError: If there is neither one for all nor one per image.
        """
        if isinstance(self.prompt, str):
            return (self.prompt,) * count
        if len(self.prompt) != count:
            raise ValueError(
                f"prompt must be one text or one per image, got {len(self.prompt)} for {count} images"
            )
        return self.prompt

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return options from the values of :meth:`to_dict`, JSON lists included.

        Raises:
            ValueError: If a key is unknown or a value does not fit.
        """
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"options of an extraction are {', '.join(sorted(known))}, got {unknown[0]!r}")
        plain = {name: _as_tuple(value) for name, value in values.items()}
        maps = {name: _as_tuple(value) for name, value in plain.pop("maps", {}).items()}
        return cls(**plain, maps=MapOptions(**maps))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingOptions:
    """Options of the scores of activations on labels.

    Attributes:
        probe: Classifier of pixels on masks: logistic regression, or the paper's ten MLPs (slow).
        folds: Number of parts into which the images are split; each is held out once.
        pixels: Number of pixels drawn from each image on masks, for learning and for judging.
        side: Cells per side of the grid to which features are resized on keypoints.
        threshold: Largest distance of a hit on keypoints, in larger sides of the image.
        absent: Score of a class on masks that a fold neither holds nor predicts: excluded from the mean
            ("skip"), or 0 as in the authors' code ("zero").
    """

    probe: ProbeName = "logistic"
    folds: int = 5
    pixels: int = 256
    side: int = 64
    threshold: float = 0.1
    absent: Absent = "skip"

    def __post_init__(self) -> None:
        _check_probe(self.probe)
        _check_least(2, folds=self.folds)
        _check_least(1, pixels=self.pixels, side=self.side)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationOptions:
    """Options of learning classes of pixels from a few masks.

    Attributes:
        probe: Classifier of pixels: logistic regression, or the paper's ten MLPs (slow).
        side: Pixels per side of the square to which features and masks are resized for learning.
        pixels: Number of pixels drawn from each image for learning; 0 takes all.
    """

    probe: ProbeName = "logistic"
    side: int = 256
    pixels: int = 1000

    def __post_init__(self) -> None:
        _check_probe(self.probe)
        _check_least(2, side=self.side)
        _check_least(0, pixels=self.pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Options of training a head over frozen features.

    Attributes:
        steps: Number of steps of the optimiser.
        batch_size: Pairs or images per step, of each process.
        rate: Learning rate at the start; it falls as a polynomial of power 0.9.
        weight_decay: Weight decay of AdamW.
        dim: Channels of the head's own features.
        side: Cells per side of an aggregation; by default those of the finest activation.
        mask_side: Pixels per side of the square on which masks are learned.
        temperature: Divisor of cosines in the loss of points.
        lovasz: Weight of the Lovász loss of masks.
        auxiliary: Weight of the auxiliary head's loss of masks.
        dropout: Share of the channels that the classifiers of masks do not see in a step.
        save_every: Steps between checkpoints, from which a stopped run goes on.
        keep: Number of images whose features are held in memory.
        seed: Random seed of weights and shuffles.
    """

    steps: int = 1000
    batch_size: int = 2
    rate: float = 5e-4
    weight_decay: float = 1e-2
    dim: int = 384
    side: int | None = None
    mask_side: int = 256
    temperature: float = 0.07
    lovasz: float = 1.0
    auxiliary: float = 0.4
    dropout: float = 0.1
    save_every: int = 100
    keep: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        _check_least(1, steps=self.steps, batch_size=self.batch_size, dim=self.dim, mask_side=self.mask_side)
        _check_least(1, save_every=self.save_every, keep=self.keep)
        if self.rate <= 0 or self.temperature <= 0:
            raise ValueError(f"rate and temperature must be above 0, got {self.rate} and {self.temperature}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


def _check_probe(name: str) -> None:
    if name not in {"logistic", "mlp"}:
        raise ValueError(f"probe must be 'logistic' or 'mlp', got {name!r}")


def _check_least(least: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
