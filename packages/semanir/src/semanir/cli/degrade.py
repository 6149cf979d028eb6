# SPDX-License-Identifier: Apache-2.0
"""``semanir degrade``: one command per degradation, its options those of the degradation."""

# no annotations from __future__: those of the commands are made here, from the degradations
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from common_kernels.runtime.batch import Job
from common_kernels.runtime.cli import OnProgress
from common_kernels.runtime.images.limits import MAX_PIXELS
from cyclopts import App, Group, Parameter

from semanir.cli.images import ImageOutput, Process, run_on_images
from semanir.degradations import kinds
from semanir.degradations.kinds import Degradation

_EXAMPLES = {
    "noise": (kinds.GaussianNoise, "--sigma 25", "--sigma 5 --sigma-max 50 --seed 3"),
    "camera-noise": (kinds.CameraNoise, "--shot 0.02 --read 4 --mosaicked", "--shot 0.001 --shot-max 0.05"),
    "correlated-noise": (kinds.CorrelatedNoise, "--sigma 20 --radius 1", "--sigma 5 --sigma-max 40"),
    "jpeg": (kinds.JPEG, "--quality 10", "--quality 5 --quality-max 95 --grid random"),
    "downscale": (kinds.BicubicDownscale, "--scale 4", "--scale 3 --recursive"),
    "mosaic": (kinds.BayerMosaic, "", "--recursive"),
    "motion-blur": (kinds.MotionBlur, "--length 21", "--length 5 --length-max 40 --curvature 2"),
    "rain": (kinds.Rain, "--density 8 --length 30", "--density 2 --density-max 12 --veil 0.3"),
    "snow": (kinds.Snow, "--density 5 --size 12", "--density 1 --density-max 8"),
    "raindrops": (kinds.Raindrops, "--count 30", "--count 5 --count-max 60 --size 0.2"),
}

app = App(
    name="degrade",
    help="""Spoil images: noise, JPEG, blur, fewer pixels, weather, for tests and for pairs to train on.

**Examples**

    semanir degrade noise photos/ -o noisy/ --sigma 25
    semanir degrade jpeg photo.png -o blocky.png --quality 10
    semanir degrade downscale DIV2K_HR/ -o DIV2K_LR_x4/ --scale 4
""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded(ImageOutput):
    """What is written, and where.

    Attributes:
        format: Format of the files in an output folder; by default png, which loses nothing more.
        unclipped: Write float TIFF files, in which nothing is clipped or rounded.
    """

    format: str = "png"
    unclipped: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self) -> None:
        ImageOutput.__post_init__(self)
        self.ending(self.format)

    def as_file(self, path: Path) -> dict[str, Path]:
        """Return the file that is written for the only input.

        Raises:
            ValueError: If it cannot hold unclipped pixels.
        """
        if self.unclipped and path.suffix.lower() not in {".tif", ".tiff"}:
            raise ValueError(f"--unclipped needs a .tif file, got {path}")
        return {"image": path}

    def in_folder(self, relative: Path) -> dict[str, Path]:
        """Return the file that is written for an image at ``relative`` below an input folder."""
        ending = ".tif" if self.unclipped else self.ending(self.format)
        return {"image": relative.with_name(f"{relative.stem}{self.suffix}{ending}")}


def _run(
    inputs: list[str],
    output: Degraded,
    degradation: Degradation,
    *,
    recursive: bool,
    seed: int,
    max_pixels: int,
) -> int:
    if seed < 0:
        raise ValueError(f"--seed must be at least 0, got {seed}")
    return run_on_images(
        inputs,
        output,
        partial(_start, degradation=degradation, seed=seed, max_pixels=max_pixels, output=output),
        settings={
            "kind": type(degradation).__name__,
            "options": degradation,
            "seed": seed,
            "unclipped": output.unclipped,
        },
        recursive=recursive,
    )


def _start(device: str, *, degradation: Degradation, seed: int, max_pixels: int, output: Degraded) -> Process:
    """Return the function that spoils one image."""
    import numpy as np
    from common_kernels.runtime.fingerprint import digest_file
    from common_kernels.runtime.images import check_format, read_image, write_image

    from semanir.degradations.files import degrade_image, generator_of

    def degrade_one(job: Job, on_progress: OnProgress) -> dict[str, object]:
        before = read_image(job.source, max_pixels=max_pixels)
        dtype = np.dtype(np.float32) if output.unclipped else before.pixels.dtype
        check_format(job.outputs["image"], before.pixels.shape, dtype)
        generator = generator_of(seed, digest_file(job.source))
        after = degrade_image(before, degradation, generator, unclipped=output.unclipped)
        write_image(after, job.outputs["image"])
        return {"width": after.width, "height": after.height, "note": after.note}

    return degrade_one


def _command(kind: type[Any], name: str, examples: tuple[str, ...]) -> Callable[..., int]:
    """Return a command whose options are the fields of a degradation."""
    options = Annotated[kind, Parameter(name="*", group=Group("Degradation", sort_key=1))]

    def degrade(
        inputs: list[str],
        /,
        *,
        output: Degraded,
        degradation: options = kind(),  # pyright: ignore[reportInvalidTypeForm] - made for cyclopts
        recursive: Annotated[bool, Parameter(alias="-r", negative="")] = False,
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> int:
        return _run(inputs, output, degradation, recursive=recursive, seed=seed, max_pixels=max_pixels)

    lines = [f"    semanir degrade {name} photos/ -o {name}/ {each}".rstrip() for each in examples]
    degrade.__doc__ = f"""{(kind.__doc__ or "").splitlines()[0]}

    Depth, transparency, colour profile and orientation are kept. A file gives the same result each time with
    the same seed, whatever others are beside it. Under `torchrun` or `accelerate launch` each process takes
    a shard of the images.

    **Examples**

    {(chr(10) * 2 + "    ").join(lines)}

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.

    Args:
        inputs: Files, folders, or quoted globs.
        recursive: Also search the folders below a folder.
        seed: Random seed.
        max_pixels: Largest image to read, in pixels.
    """
    return degrade


for _name, (_kind, *_examples) in _EXAMPLES.items():
    app.command(_command(_kind, _name, tuple(_examples)), name=_name)
