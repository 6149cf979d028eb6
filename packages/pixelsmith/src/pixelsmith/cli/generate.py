# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith generate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixelsmith.cli.job import JobRequest, ModelRequest, run_job, validate_options
from pixelsmith.cli.options import (
    Denoising,
    JobOutput,
    Loading,
    Patches,
    Sampling,
    Size,
    SliderText,
    file_stem,
)
from pixelsmith.config import DenoisingConfig, LoadingConfig, SamplingConfig, SizeConfig, parse_size

if TYPE_CHECKING:
    from pixelsmith.core.model import JobModel
    from pixelsmith.job import JobSpec


def generate(
    prompt: str,
    /,
    *,
    sizes: Size = SizeConfig(),
    base: str | None = None,
    slider: SliderText = "auto",
    denoising: Denoising = DenoisingConfig(),
    sampling: Sampling = SamplingConfig(),
    loading: Loading = LoadingConfig(),
    machine: Patches = Patches(),
    output: JobOutput = JobOutput(),
    model: str = "tiny-sdxl",
) -> int:
    """Generate an image of any size from a prompt.

    The model generates a base image of the size that it was trained at; this one is enlarged, and denoised
    again patch by patch. Intermediate results are kept in a job folder: a run that was stopped or killed is
    resumed by the same command, or by `pixelsmith resume`. Under `accelerate launch` all processes share the
    patches. Exit code: 0 done, 1 begun and not finished, 2 nothing was done, 130 interrupted.

    **Examples**

        pixelsmith generate "a red circle" --size 256
        pixelsmith generate "a harbour at dawn" --size 4096x3072 --model ./sdxl -o harbour.tif
        pixelsmith generate "hills" --size 8192x2048 --wrap horizontal --via 4096 --model ./sdxl
        pixelsmith generate "a city" --size 31616 --model ./sdxl -o city.dzi --dry-run
        pixelsmith generate "a city" --size 4096 --model ./sdxl --variant fp16 --lora style.safetensors:0.8
        accelerate launch -m pixelsmith generate "a city" --size 16384 --model ./sdxl -o city.tif

    Args:
        prompt: Prompt.
        base: Size of the base image, WIDTHxHEIGHT or one number for the longer side; chosen by the model if
            not given.
        slider: Guided steps: a number (20), a fraction (0.9), auto, one per stage (20,30), or a .json file
            with rows of fractions, stretched over the image; more keeps more of the base image.
        model: Shipped name, folder in the format of diffusers, .safetensors file, or hub id.
    """
    if sizes.fit is not None:
        raise ValueError("--fit is for the image of an upscale: what is generated has the shape of its size")
    sliders = validate_options(slider, sizes, output)
    if base is not None:
        parse_size(base)

    def plan(loaded: JobModel) -> JobSpec:
        from pixelsmith.job.plan import plan_job

        config = request.config(loaded)
        return plan_job(loaded, config, sizes, base=base, sliders=sliders)

    chosen = ModelRequest.create(model, prompt, sampling, machine, loading)
    request = JobRequest(chosen, denoising, machine, output, prompt, Path.cwd() / file_stem(prompt))
    return run_job(request, plan)
