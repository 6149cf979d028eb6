# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the commands: option groups, loading, extraction."""

# no annotations from __future__: cyclopts would look up inherited ones in the module of a subclass
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from common_kernels.runtime.cli import Device, stderr
from cyclopts import Group, Parameter, Token

from diffeat.options import ExtractionOptions, MapOptions
from diffeat.presets import PRESETS, preset

if TYPE_CHECKING:
    from PIL import Image

    from diffeat.extractor import FeatureExtractor
    from diffeat.heads import AggregationHead
    from diffeat.match import SoftArgmax

_EXTRACTION = Group("Extraction", sort_key=2)


def parse_size(type_: Any, tokens: Sequence[Token]) -> int | tuple[int, int]:
    """Read an image size: a side, or ``HxW``.

    Raises:
        ValueError: If the text is neither.
    """
    parts = tokens[0].value.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--size takes a side or HEIGHTxWIDTH in pixels, got {tokens[0].value!r}")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


ImageSize = Annotated[
    int | tuple[int, int] | None, Parameter(converter=parse_size, n_tokens=1, metavar="SIDE|HxW")
]


@Parameter(name="*", group=Group("Activations", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Choice of activations.

    Attributes:
        names: Name, quoted glob such as "up-level1-*-cross-{q,map}", mean of maps such as up-cross-attn, or
            dotted module path; may be repeated.
        preset: Name of a selection; "diffeat presets" lists them.
    """

    names: Annotated[list[str], Parameter(alias="-n", show_default=False)] = field(default_factory=list[str])
    preset: Annotated[str | None, Parameter(alias="-p")] = None

    def chosen(self, default: Sequence[str] = ()) -> list[str]:
        """Names of the activations.

        Args:
            default: Names if none are given.

        Raises:
            LookupError: If the preset is unknown.
            ValueError: If nothing is chosen, or the preset spans several models.
        """
        found = [*self.names, *(preset(self.preset).names if self.preset is not None else ())]
        if not found and not default:
            raise ValueError(
                f"--names or --preset must name activations: a name, a glob, or one of {', '.join(PRESETS)}"
            )
        return found or list(default)


@Parameter(name="*", group=_EXTRACTION)
@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction(ExtractionOptions):
    """The options of an extraction under the names of the command line.

    Attributes:
        timesteps: Timestep of the training schedule; may be repeated.
        prompt: Prompt of all images; it may exceed the window of a CLIP text encoder.
        size: Image size in pixels before the model; by default the native square of the model. Images
            are resized to it whatever their aspect ratio.
    """

    timesteps: Annotated[tuple[int, ...], Parameter(name=("--timestep", "-t"))] = (50,)
    prompt: str = ""
    size: ImageSize = None
    maps: Annotated[MapOptions, Parameter(name="*", group=_EXTRACTION)] = field(default_factory=MapOptions)

    def __post_init__(self) -> None:
        ExtractionOptions.__post_init__(self)  # the zero-argument super() fails in a dataclass with slots
        for step in self.timesteps:
            if self.timesteps.count(step) > 1:
                raise ValueError(f"--timestep {step} is given more than once")

    def plain(self) -> ExtractionOptions:
        """Return the options of the Python API."""
        return ExtractionOptions(**{each.name: getattr(self, each.name) for each in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Device):
    """Device, dtype and batch size; the random seed belongs to the extraction.

    Attributes:
        dtype: Compute dtype; auto is float32 on CPU, else float16 for U-Nets and bfloat16 for transformers.
        batch_size: Number of images per pass.
    """

    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")


MATCHING = Group("Matching", sort_key=4)


@Parameter(name="*", group=MATCHING)
@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """The way points are found.

    Attributes:
        head: Head of "diffeat train", which brings its own activations and options of extraction.
        window: Cells per side around the most similar one whose mean place is taken (soft-argmax); 0 takes
            the cell itself.
    """

    head: Path | None = None
    window: int = 0

    def __post_init__(self) -> None:
        if self.window < 0 or (self.window > 0 and self.window % 2 == 0):
            raise ValueError(f"--window must be 0 or an odd number of cells, got {self.window}")

    def soft(self) -> "SoftArgmax | None":
        """Return the refinement of the cells found."""
        from diffeat.match import SoftArgmax

        return SoftArgmax(window=self.window) if self.window else None

    def reading(
        self, selection: Selection, options: Extraction
    ) -> "tuple[AggregationHead | None, Sequence[str], ExtractionOptions]":
        """Return the head if there is one, and the activations and options of extraction that count.

        Raises:
            FileNotFoundError: If there is no such head.
            LookupError: If a preset is unknown.
            ValueError: If it is no head of points, or no activation is named.
        """
        if self.head is None:
            return None, selection.chosen(), options.plain()
        from diffeat.heads import load_head

        head = cast("AggregationHead", load_head(self.head, "aggregation"))
        return head, head.config.names, head.config.options


def load_extractor(model: str, machine: Device, *, device: str | None = None) -> "FeatureExtractor":
    """Load the model of a command.

    Args:
        model: Shipped name, folder or hub id of a pipeline.
        machine: Device and dtype.
        device: Device of this process, if several share the work.
    """
    from common_kernels.runtime.hub import quiet_libraries, resolve_device

    resolve_device(device or machine.device)  # a missing device is an error before anything is loaded

    from diffeat.extractor import FeatureExtractor

    with quiet_libraries("diffusers", "transformers"):
        return FeatureExtractor.from_pretrained(model, device=device or machine.device, dtype=machine.dtype)


def find_images(inputs: Sequence[str], *, recursive: bool) -> list[Path]:
    """Return files, and the images in folders and globs, without duplicates."""
    from common_kernels.runtime.batch import find_sources

    return [source.path for source in find_sources(inputs, recursive=recursive)]


def check_absent(*paths: Path, overwrite: bool) -> None:
    """Refuse to replace files before the computation.

    Raises:
        FileExistsError: If a file exists and ``overwrite`` is not set.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists: give another name, or --overwrite")


def write_drawing(drawing: "Image.Image", path: Path) -> None:
    """Write a drawing atomically.

    Raises:
        ValueError: If the suffix of the file names no format.
    """
    from common_kernels.runtime.images import write_image

    write_image(drawing, path)


def note(message: str) -> None:
    """Report the outcome on stderr; stdout is for results."""
    stderr.print(message, soft_wrap=True, highlight=False, markup=False)


def plural(number: int, word: str) -> str:
    """``1 image``, ``2 images``, ``3 matches``."""
    return f"{number} {word}{'' if number == 1 else 'es' if word.endswith('ch') else 's'}"
