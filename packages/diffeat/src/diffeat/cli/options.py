# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from diffeat.cli.output import progress, quiet_loading
from diffeat.presets import PRESETS, preset

if TYPE_CHECKING:
    from torch import Tensor

    from diffeat.extractor import FeatureExtractor
    from diffeat.features import Features
    from diffeat.store import Recipe

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})

Model = Annotated[
    str,
    typer.Argument(
        help="Folder or hub name of a diffusers pipeline, or tiny-sdxl, which is inside this package.",
        metavar="MODEL",
        show_default=False,
    ),
]
Images = Annotated[list[str], typer.Argument(help="Files and folders.", metavar="IMAGES", show_default=False)]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Also the folders in a folder.")]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--names",
        "-n",
        metavar="NAME",
        help='A name, a quoted glob such as "up-level1-*-cross-{q,map}", a mean of maps such as '
        "up-cross-attn, or a dotted module path; may be repeated.",
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option("--preset", "-p", metavar="PRESET", help="A selection; 'diffeat presets' lists them."),
]
Timesteps = Annotated[
    list[int] | None,
    typer.Option("--t", "-t", metavar="T", help="Timestep of the training schedule; may be repeated. [50]"),
]
Timestep = Annotated[int, typer.Option("--t", "-t", metavar="T", help="Timestep of the training schedule.")]
Prompt = Annotated[str, typer.Option(help="For all images; may be long.")]
Seed = Annotated[int, typer.Option(help="Of the noise; each image has its own, whatever its batch.")]
NumNoises = Annotated[int, typer.Option(min=1, help="Noises over which features are averaged.")]
Size = Annotated[
    str | None,
    typer.Option(metavar="SIDE|HxW", help="Pixels to resize images to; the model's own size if left out."),
]
Posterior = Annotated[Literal["mode", "sample"], typer.Option(help="Of the autoencoder; the authors sample.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per pass.", rich_help_panel="Machine")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda[:n], mps.", rich_help_panel="Machine")]
DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        help="Arithmetic; auto is float32 on the CPU, else float16 for U-Nets and bfloat16 for transformers.",
        rich_help_panel="Machine",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Machine")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What commands that extract in passing need to know.

    Attributes:
        recipe: Timestep, seed, size and so on.
        prompt: For all images.
        batch_size: Images per pass.
    """

    recipe: Recipe
    prompt: str
    batch_size: int


def make_inputs(
    *, t: int, prompt: str, size: str | None, seed: int, num_noises: int, batch_size: int
) -> Inputs:
    """Gather the options of one timestep."""
    from diffeat.store import Recipe

    recipe = Recipe(t=(t,), seed=seed, num_noises=num_noises, size=parse_size(size))
    return Inputs(recipe=recipe, prompt=prompt, batch_size=batch_size)


def parse_point(text: str) -> tuple[float, float]:
    """Read ``X,Y``.

    Raises:
        ValueError: If the text is something else.
    """
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"a point reads X,Y in pixels of the image, got {text!r}") from None
    return x, y


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """Read a side or ``HxW``.

    Raises:
        ValueError: If the text is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--size takes a side or HEIGHTxWIDTH in pixels, got {text!r}")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def chosen_names(names: Sequence[str] | None, preset_name: str | None) -> list[str]:
    """Names from ``--names`` and ``--preset``.

    Raises:
        LookupError: If the preset is unknown.
        ValueError: If nothing is asked for, or the preset spans several models.
    """
    found = list(names or ())
    if preset_name is not None:
        found.extend(preset(preset_name).names)
    if not found:
        raise ValueError(
            f"--names or --preset must ask for something: a name, a glob, or one of {', '.join(PRESETS)}"
        )
    return found


def find_images(inputs: Sequence[str], *, recursive: bool) -> list[Path]:
    """Files and the images in folders, each once, sorted inside a folder.

    Raises:
        ValueError: If an input does not exist or a folder holds no image.
    """
    found = [path for text in inputs for path in _images_of(Path(text), recursive)]
    return list(dict.fromkeys(found))


def _images_of(path: Path, recursive: bool) -> Iterator[Path]:
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder")
    if not path.is_dir():
        yield path
        return
    inside = sorted(path.rglob("*") if recursive else path.iterdir())
    images = [each for each in inside if each.suffix.lower() in SUFFIXES and each.is_file()]
    if not images:
        cure = "" if recursive else "; --recursive looks into the folders below"
        raise ValueError(f"{path} holds no images{cure}")
    yield from images


def load_extractor(model: str, *, device: str, dtype: str) -> FeatureExtractor:
    """Load the model of a command.

    Raises:
        ValueError: If there is no pipeline of this name, or no such device.
    """
    from diffeat.extractor import FeatureExtractor
    from diffeat.shipped import located

    _check_device(device)
    folder = Path(located(model))
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise ValueError(f"{model} is no diffusers pipeline: it has no model_index.json")
    with quiet_loading():
        try:
            return FeatureExtractor.from_pretrained(cast("object", model), device=device, dtype=dtype)
        except OSError as error:
            if folder.is_dir():
                raise
            raise ValueError(
                f"{model!r} is neither a folder nor a pipeline on the hub that can be reached from here"
            ) from error


def _check_device(text: str) -> None:
    import torch

    kind, _, number = text.partition(":")
    counts = {
        "auto": 1,
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if kind not in counts or (":" in text and not number.isdecimal()):
        raise ValueError(
            f"--device takes auto, cpu, cuda, mps or one of several such as cuda:1, got {text!r}"
        )
    if int(number or 0) >= counts[kind]:
        raise ValueError(f"--device {text} is not on this machine; auto takes the best that is")


def read_features(
    extractor: FeatureExtractor, images: Sequence[Path], names: Sequence[str], inputs: Inputs
) -> Features:
    """Features of a few images in memory, with a bar."""
    import torch

    from diffeat.features import Features

    parts: list[Features] = []
    arguments = inputs.recipe.arguments()
    with progress("images") as on_image:
        for start in range(0, len(images), inputs.batch_size):
            part = list(images[start : start + inputs.batch_size])
            parts.append(
                extractor(part, names, prompt=inputs.prompt, batch_size=inputs.batch_size, **arguments)
            )
            on_image(start + len(part), len(images))
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Features(tensors, parts[0].meta)


def spatial(features: Features) -> dict[str, Tensor]:
    """The activations that lie on the image.

    Raises:
        ValueError: If one does not.
    """
    for name, value in features.items():
        if value.ndim != 4:
            raise ValueError(f"{name} has no channels on the image; maps and text tokens cannot be used here")
    return dict(features.tensors)
