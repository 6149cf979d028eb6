# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith upscale``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pixelsmith.cli.job import JobRequest, ModelRequest, run_job, validate_options
from pixelsmith.cli.options import Denoising, JobOutput, Loading, Patches, Sampling, Size, SliderText
from pixelsmith.config import DenoisingConfig, LoadingConfig, SamplingConfig, SizeConfig

if TYPE_CHECKING:
    from common_kernels.runtime.images import ImageFile

    from pixelsmith.core.model import JobModel
    from pixelsmith.job import JobSpec


def upscale(
    image: Path,
    /,
    *,
    prompt: str = "",
    sizes: Size = SizeConfig(),
    slider: SliderText = "auto",
    denoising: Denoising = DenoisingConfig(),
    sampling: Sampling = SamplingConfig(),
    loading: Loading = LoadingConfig(),
    machine: Patches = Patches(),
    output: JobOutput = JobOutput(),
    model: str = "tiny-sdxl",
    max_pixels: int = 100_000_000,
) -> int:
    """Enlarge an image, adding the detail that the model sees in it.

    A prompt that describes the image helps. A higher slider keeps more of the image, a lower one invents
    more. A run that was stopped or killed is resumed by the same command, or by `pixelsmith resume`.
    Exit code: 0 done, 1 begun and not finished, 2 nothing was done, 130 interrupted.

    **Examples**

        pixelsmith upscale photo.jpg --scale 4 --prompt "a cat on a wall" --model ./sdxl
        pixelsmith upscale photo.jpg --size 8192 --via 4096 --slider 0.9,0.95 --model ./sdxl -o photo.dzi
        pixelsmith upscale photo.jpg --size 3840x2160 --fit crop --model ./sdxl
        pixelsmith upscale photo.jpg --scale 4 --model ./sdxl --controlnet ./tile --offload model
        pixelsmith upscale tile.png --scale 2 --wrap both --model ./sdxl
        pixelsmith upscale photo.jpg --scale 8 --model ./sdxl --dry-run

    Args:
        image: Image file.
        prompt: Prompt that describes the image.
        slider: Guided steps: a number (20), a fraction (0.9), auto, one per stage (20,30), or a .json file
            with rows of fractions, stretched over the image; more keeps more of the image.
        model: Shipped name, folder in the format of diffusers, .safetensors file, or hub id.
        max_pixels: Limit of the pixels of the image, checked before it is decoded.
    """
    from common_kernels.runtime.images import read_image

    from pixelsmith.job.source import digest_image

    sliders = validate_options(slider, sizes, output)
    if output.output is not None and output.output.resolve() == image.resolve():
        raise ValueError(f"{image} would be overwritten by its own result: give another name or folder")
    # all of it, since damage in the middle of a file does not show in its header
    found = read_image(image, max_pixels=max_pixels)
    size, digest = (found.height, found.width), digest_image(image)
    remarks = list_losses(found, image, output.output)
    if model == "tiny-sdxl":
        remarks.append("tiny-sdxl knows drawn shapes only; name a model for photographs with --model")
    del found

    def plan(loaded: JobModel) -> JobSpec:
        from pixelsmith.job.plan import plan_job

        spec = plan_job(loaded, request.config(loaded), sizes, image_size=size, sliders=sliders)
        return replace(spec, source=image.absolute(), source_digest=digest, max_pixels=max_pixels)

    if loading.controlnet is not None and loading.control_image is None:
        if sizes.fit is not None:
            raise ValueError("--controlnet with --fit needs a --control-image of the shape of the result")
        loading = replace(loading, control_image=str(image.absolute()))
    chosen = ModelRequest.create(model, prompt, sampling, machine, loading)
    request = JobRequest(chosen, denoising, machine, output, str(image), image.with_suffix("").absolute())
    return run_job(request, plan, remarks=remarks)


def list_losses(image: ImageFile, path: Path, output: Path | None) -> list[str]:
    """Return what the result will not have of an image, a sentence each."""
    from pixelsmith.io.writers import holds_alpha

    found = [f"{path}: {image.note}"] if image.note else []
    if image.pixels.dtype != "uint8":
        found.append(f"{path} has {image.pixels.dtype.itemsize * 8} bits per channel, the result has 8")
    is_transparent = image.pixels.ndim == 3 and image.pixels.shape[2] in (2, 4)
    if is_transparent and output is not None and not holds_alpha(output):
        found.append(f"a {output.suffix} file holds no transparency: those parts become white")
    return found
