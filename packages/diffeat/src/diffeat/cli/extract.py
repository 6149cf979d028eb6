# SPDX-License-Identifier: Apache-2.0
"""``diffeat extract``: features of many images, to a store that can be resumed or to one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from diffeat.cli.options import (
    BatchSize,
    Debug,
    Device,
    DtypeOption,
    Images,
    Json,
    Model,
    Names,
    NumNoises,
    Posterior,
    PresetOption,
    Prompt,
    Recursive,
    Seed,
    Size,
    Timesteps,
    chosen_names,
    find_images,
    load_extractor,
    parse_size,
)
from diffeat.cli.output import count, one_line, progress, report_broken, say, user_errors

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor
    from diffeat.store import Recipe

_FILE = ".safetensors"


def extract(
    model: Model,
    images: Images,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help=f"Folder of a store (or an address such as s3://...), or a {_FILE} file for a small run.",
            show_default=False,
        ),
    ],
    names: Names = None,
    preset: PresetOption = None,
    t: Timesteps = None,
    prompt: Prompt = "",
    size: Size = None,
    seed: Seed = 0,
    num_noises: NumNoises = 1,
    posterior: Posterior = "mode",
    heads: Annotated[
        str, typer.Option(help="Heads of attention maps: all, mean, or numbers between commas.")
    ] = "all",
    tokens: Annotated[
        str | None,
        typer.Option(help="Keys of attention maps to keep, numbers between commas; all if left out."),
    ] = None,
    store_dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="In which features are stored.")
    ] = "float16",
    recursive: Recursive = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=f"Replace a {_FILE} file.")] = False,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""Take activations of a diffusion model as features of images.

    Images are encoded, noised to timestep T and passed through the denoiser
    once, which stops after the last activation you asked for. Ask by --names
    (names, globs), by --preset, or both.

    A store holds one zarr array per activation. What is in it already is not
    computed again, and a run that was killed goes on where it was; under
    [bold]accelerate launch[/bold] the images are shared out among the processes.

    [bold]Examples[/bold]

      diffeat extract path/to/sdxl photos/ --preset Ours-XL -o features/

      diffeat extract path/to/sd15 photos/ -r -n "up-level1-*-cross-q" \
        -t 50 -t 261 --prompt "a photo of a horse" -o features/

      diffeat extract path/to/sd15 cat.jpg -n up-cross-attn --heads mean \
        --tokens 1,2 -o cat.safetensors

    Exit code: 0 all done, 1 some images could not be read (each is named), 2
    nothing could be done.
    """
    with user_errors(debug):
        from diffeat.capture.maps import MapOptions
        from diffeat.capture.select import resolve
        from diffeat.store import Recipe

        wanted = chosen_names(names, preset)
        recipe = Recipe(
            t=tuple(t or (50,)),
            seed=seed,
            num_noises=num_noises,
            size=parse_size(size),
            posterior=posterior,
            maps=MapOptions(heads=_heads(heads), tokens=_numbers("--tokens", tokens)),
            dtype=store_dtype,
        )
        found = find_images(images, recursive=recursive)
        _prepare_file(out, overwrite)
        extractor = load_extractor(model, device=device, dtype=dtype)
        resolve(extractor.model, wanted)  # a wrong name is told before anything is written
        run = _to_file if out.endswith(_FILE) else _to_store
        report, failures = run(extractor, found, wanted, out, prompt, recipe, batch_size)
    if json_output:
        typer.echo(json.dumps(report))
    report_broken(failures)


def _to_store(
    extractor: FeatureExtractor,
    images: list[Path],
    names: list[str],
    out: str,
    prompt: str,
    recipe: Recipe,
    batch_size: int,
) -> tuple[dict[str, Any], dict[str, str]]:
    from diffeat.store import FeatureStore

    store = FeatureStore(out)
    failures: dict[str, str] = {}
    with progress("batches") as on_batch:
        report = store.add(
            extractor,
            images,
            names,
            prompt=prompt,
            recipe=recipe,
            batch_size=batch_size,
            on_batch=on_batch,
            on_broken=lambda item, error: failures.update({item.source: one_line(error)}),
        )
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items())
    say(
        f"{count(report.computed, 'image')} computed, {report.cached} there before, "
        f"in {report.seconds:.1f} s ({shares} of the time); {count(len(store.names), 'activation')} in {out}"
    )
    summary = {
        "store": out,
        "names": list(store.names),
        "images": report.images,
        "computed": report.computed,
        "cached": report.cached,
        "seconds": round(report.seconds, 3),
        "shares": {stage: round(share, 4) for stage, share in report.shares.items()},
        "failed": failures,
    }
    return summary, failures


def _to_file(
    extractor: FeatureExtractor,
    images: list[Path],
    names: list[str],
    out: str,
    prompt: str,
    recipe: Recipe,
    batch_size: int,
) -> tuple[dict[str, Any], dict[str, str]]:
    import torch

    from diffeat.store import save_features

    features = extractor(images, names, prompt=prompt, batch_size=batch_size, **recipe.arguments())
    save_features(features.to(dtype=getattr(torch, recipe.dtype)), out)
    say(f"{count(len(images), 'image')}, {count(len(features), 'activation')} in {out}")
    shapes = {name: list(value.shape) for name, value in features.items()}
    return {"file": out, "names": list(features), "images": len(images), "shapes": shapes}, {}


def _prepare_file(out: str, overwrite: bool) -> None:
    """Refuse to replace a file, and make the folder that it goes to, before anything is computed."""
    if not out.endswith(_FILE) or "://" in out:
        return
    if Path(out).exists() and not overwrite:
        raise ValueError(f"{out} exists: give another name, or --overwrite")
    Path(out).parent.mkdir(parents=True, exist_ok=True)


def _heads(text: str) -> Literal["all", "mean"] | tuple[int, ...]:
    if text == "all" or text == "mean":
        return text
    return _numbers("--heads", text) or ()


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.lstrip("-").isdecimal() for part in parts):
        raise ValueError(f"{option} takes numbers between commas, got {text!r}")
    return tuple(int(part) for part in parts)
