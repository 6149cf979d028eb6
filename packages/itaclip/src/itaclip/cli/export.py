# SPDX-License-Identifier: Apache-2.0
"""``itaclip export``: the image side as an ONNX file."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
import typer

from itaclip.cli.options import (
    Background,
    BackgroundFirst,
    Debug,
    Json,
    Model,
    ModelOptions,
    Overwrite,
    Preset,
    Pretrained,
    Settings,
    Texts,
    find_texts,
    parse_classes,
)
from itaclip.cli.output import fail, one_line, stderr, stdout, user_errors, warn

if TYPE_CHECKING:
    from itaclip.export import ExportReport
    from itaclip.model import ITACLIP
    from itaclip.text.classes import ClassList
    from itaclip.text.sources import TextSource


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="An .onnx file.")],
    classes: Annotated[
        str | None,
        typer.Option("--classes", "-c", help="Also write NAME-texts.npz, the embeddings of these classes."),
    ] = None,
    background: Background = None,
    texts: Texts = None,
    background_first: BackgroundFirst = False,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of a window in pixels; the preset's crop if left out.")
    ] = None,
    model: Model = "tiny-shapes",
    pretrained: Pretrained = None,
    preset: Preset = "auto",
    settings: Settings = None,
    verify: Annotated[
        bool, typer.Option(help="Check the file against the model with ONNX Runtime, to 1e-4.")
    ] = True,
    overwrite: Overwrite = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""Write the image side of a model as ONNX: windows in, features and scores of every patch out.

    Inputs: images (batch, 3, size, size), RGB in [0, 1]; text (names, D), as in
    NAME-texts.npz. Outputs: features (batch, D, height, width) and scores
    (batch, names, height, width), in patches. Normalisation and all branches of
    the preset are inside. Laying out windows, refinement and rules are not;
    their settings stand in the metadata entry "itaclip".
    Needs: pip install "itaclip\[export]".

    [bold]Examples[/bold]

      itaclip export -o tiny.onnx

      itaclip export -o clip.onnx -c "cat, dog, sky" --preset fast \
        --model ViT-B-16 --pretrained openai

    Exit code: 0 done, 1 the file disagrees with the model, 2 nothing could be done.
    """
    with user_errors(debug):
        if output.suffix.lower() != ".onnx":
            fail(f"--output must be an .onnx file, got {output}")
        written = None if classes is None else output.with_name(f"{output.stem}-texts.npz")
        if output.exists() and (written is None or written.exists()) and not overwrite:
            _skip(output, json_output=json_output)
        chosen, source = None, None
        if classes is not None:
            chosen = parse_classes(classes, background=background, background_first=background_first)
            source = find_texts(texts, classes)
        segmenter = _load(model, pretrained, preset, settings or ())
        # first, for they are done at once and may be refused
        embedded = None if chosen is None else _embed(segmenter, chosen, source)
        report = _export(segmenter, output, size, verify=verify, debug=debug, json_output=json_output)
        if written is not None and embedded is not None:
            from itaclip.images import save_file

            save_file(written, embedded)
    _tell(report, output, written, verify=verify, json_output=json_output)


def _load(model: str, pretrained: str | None, preset: str, settings: Sequence[str]) -> ITACLIP:
    options = ModelOptions(
        model=model,
        pretrained=pretrained,
        preset=preset,
        settings=settings,
        device="cpu",
        dtype="float32",
    )
    return options.load(options.config())


def _export(
    segmenter: ITACLIP, output: Path, side: int | None, *, verify: bool, debug: bool, json_output: bool
) -> ExportReport:
    """Write the file; one that disagrees with the model ends the command with 1."""
    from itaclip.export import ExportError, export_onnx

    size = None if side is None else (side, side)
    with stderr.status("exporting"):
        try:
            return export_onnx(segmenter, output, size=size, verify=verify)
        except ExportError as error:
            if debug:
                raise
            warn(one_line(error), style="red")
            if json_output:
                entry = {"output": str(output), "status": "failed", "error": one_line(error)}
                typer.echo(json.dumps(entry))
            raise typer.Exit(1) from None


def _skip(output: Path, *, json_output: bool) -> NoReturn:
    warn(f"{output} is there already, skipped (--overwrite replaces it)", style="dim")
    if json_output:
        typer.echo(json.dumps({"output": str(output), "status": "skipped"}))
    raise typer.Exit(0)


def _tell(
    report: ExportReport, output: Path, written: Path | None, *, verify: bool, json_output: bool
) -> None:
    """Say what was written, to people or as JSON."""
    if json_output:
        entry = {
            "output": str(output),
            "status": "exported",
            "texts": None if written is None else str(written),
            "size": list(report.size),
            "grid": list(report.grid),
            "error": report.error if verify else None,
            "bytes": report.num_bytes,
        }
        typer.echo(json.dumps(entry))
        return
    checked = f"differs from the model by at most {report.error:.1e}" if verify else "not checked"
    stdout.print(
        f"{output}: {report.num_bytes / 1e6:.1f} MB, windows of {report.size[0]} px, {checked}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    if written is not None:
        stdout.print(f"{written}: the texts", soft_wrap=True, markup=False, highlight=False)


def _embed(segmenter: ITACLIP, classes: ClassList, source: TextSource | None) -> bytes:
    """Return ``NAME-texts.npz``: one feature per name, and which class it belongs to."""
    from itaclip.text.embed import text_features
    from itaclip.text.sources import aux_texts

    features = text_features(
        segmenter.model,
        segmenter.tokenizer,
        classes,
        aux_texts(source, classes),
        segmenter.config.alpha,
        templates=segmenter.config.templates,
        cache="auto",
    )
    buffer = io.BytesIO()
    np.savez(
        buffer,
        text=features.numpy(),
        names=np.array(classes.names),
        owner=np.array(classes.owner),
        labels=np.array(classes.labels),
    )
    return buffer.getvalue()
