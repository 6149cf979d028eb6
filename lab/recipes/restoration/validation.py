# SPDX-License-Identifier: Apache-2.0
"""Validation, by which alone runs are stopped and chosen: photographs of Debian packages, fresh leaves."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from common_kernels.runtime.cli import OutputPath, say
from common_kernels.runtime.images import read_rgb
from semanir import SemanIR

from recipes.options import Debug, Processor
from recipes.restoration.baselines import Photos, baseline_figures
from recipes.restoration.conditions import CONDITIONS, Photo, middle
from recipes.restoration.dead_leaves import render
from recipes.restoration.judging import Model, add, measure, network_model, show
from recipes.restoration.networks import load_run
from recipes.restoration.tasks import TASKS, TaskName

# package=version: digest of its file, where its photographs are; never trained on, never committed
PACKAGES = {
    "mate-backgrounds=1.26.0-1": (
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        "usr/share/backgrounds/mate/nature",
    ),
    "lomiri-wallpapers-16.04=20.04.0-2": (
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        "usr/share/backgrounds",
    ),
}
SIDE = 192  # pixels of a validation image
WIDTH = (
    900  # pixels to which a photograph is shrunk first, which leaves little of its own noise and compression
)
FIRST_LEAVES = 1_000_000  # seed of the first leaves for validation, far from any pool


def photographs(*, output: OutputPath, debug: Debug = Debug()) -> None:
    """Fetch the validation photographs from Debian packages, shrunk and cut to squares.

    Args:
        output: File to write, .npy: ``(images, 192, 192, 3)`` uint8.
    """
    images: list[Photo] = []
    with TemporaryDirectory() as temporary:
        for package, (digest, inner) in PACKAGES.items():
            folder = Path(temporary) / package.partition("=")[0]
            _fetch(package, digest, folder)
            images += [_shrunk(file) for file in sorted((folder / inner).glob("*.jpg"))]
    output.parent.mkdir(parents=True, exist_ok=True)
    np.save(output, np.stack(images))
    say(f"{output}: {len(images)} photographs")


def _fetch(package: str, digest: str, folder: Path) -> None:
    """Download a package into a folder, check it, and unpack it there."""
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
        raise ValueError(
            f"validation photographs need Debian's {' and '.join(missing)}; validate on leaves alone"
        )
    folder.mkdir()
    done = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, check=False)
    files = list(folder.glob("*.deb"))
    if done.returncode or not files:
        raise ValueError(f"apt-get found no {package}; validate on leaves alone")
    if hashlib.sha256(files[0].read_bytes()).hexdigest() != digest:
        raise ValueError(f"{package} is not the file whose digest the recipe knows")
    subprocess.run(["dpkg-deb", "-x", files[0].name, "."], cwd=folder, check=True)


def _shrunk(file: Path) -> Photo:
    pixels = np.asarray(read_rgb(file))
    height = round(len(pixels) * WIDTH / pixels.shape[1])
    return middle(cv2.resize(pixels, (WIDTH, height), interpolation=cv2.INTER_AREA), SIDE)


def validation_images(photos: Path | None, leaves: int) -> Photos:
    """Return the loaders of the validation images by name."""
    found: dict[str, Photo] = {}
    if photos is not None:
        found = {f"photograph {number}": image for number, image in enumerate(np.load(photos))}
    found |= {f"leaves {number}": render(SIDE, FIRST_LEAVES + number) for number in range(leaves)}
    return {name: partial(np.copy, image) for name, image in found.items()}


def validate(
    task: TaskName,
    /,
    *runs: Path,
    photos: Path | None = None,
    leaves: int = 8,
    k: tuple[int, ...] = (),
    cache: Path = Path("runs/validation.json"),
    processor: Processor = Processor(),
) -> None:
    """Compare networks on validation images; the test photographs stay unread.

    Args:
        task: What the networks learnt.
        runs: Folders of the command 'train'.
        photos: Validation photographs, from the command 'photographs'; none if there is no such file.
        leaves: Number of fresh dead-leaves images.
        k: Keys per token with which SemanIR runs are tried as well.
        cache: JSON file of what the classical methods reached.
        processor: What it computes with.
    """
    torch.set_num_threads(processor.threads)
    images, conditions = validation_images(photos, leaves), CONDITIONS[task]
    scale = TASKS[task].scale
    models: dict[str, Model] = {}
    for run in runs:
        network = load_run(run, TASKS[task])
        models[run.name] = network_model(network, scale)
        if isinstance(network, SemanIR):
            models |= {f"{run.name}, k {each}": network_model(network, scale, each) for each in k}
    figures = add(baseline_figures(images, conditions, cache), measure(models, images, conditions))
    for kind in ("photograph", "leaves"):
        names = [name for name in images if name.startswith(kind)]
        if names:
            show(figures, f"tiny-{task}, {kind}", names)
