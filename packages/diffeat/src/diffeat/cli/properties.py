# SPDX-License-Identifier: Apache-2.0
"""``diffeat properties``: activations measured without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from common_kernels.runtime.cli import Output, emit, progress, show, warn
from cyclopts import Parameter

from diffeat.cli.frame import (
    Extraction,
    Machine,
    Selection,
    check_absent,
    find_images,
    load_extractor,
    note,
    plural,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertiesOutput(Output):
    """Files of the figures.

    Attributes:
        output: JSON file of the figures; a chart is written beside it.
        overwrite: Replace earlier files.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("properties.json")

    def __post_init__(self) -> None:
        if self.output.suffix != ".json":
            raise ValueError(
                f"--output names the file of the figures, such as {self.output.with_suffix('.json')}, got "
                f"{self.output}"
            )


def properties(
    inputs: list[str],
    /,
    *,
    output: PropertiesOutput = PropertiesOutput(),
    selection: Selection = Selection(),
    options: Extraction = Extraction(),
    machine: Machine = Machine(),
    model: str = "tiny-sdxl",
    recursive: Annotated[bool, Parameter(alias="-r", negative="")] = False,
) -> None:
    """Measure the properties that the paper judges by eye, on a few unlabelled images.

    Noise sensitivity (0 is independent of the noise, 1 is noise alone), high-frequency share, locality
    (1 is the pixel grid) and granularity (size of structures, in shares of the side), drawn over the depth of
    the model.

    **Examples**

        diffeat properties photos/ --model path/to/sdxl -n "up-*" -o up.json

    Args:
        inputs: Files, folders, or quoted globs.
        model: Shipped name, folder or hub id of a pipeline.
        recursive: Whether to search folders below a folder.
    """
    chart = output.output.with_suffix(".png")
    check_absent(output.output, chart, overwrite=output.overwrite)
    from common_kernels.runtime.files import make_folder

    from diffeat.ranking.properties import FIGURES, measure_properties

    names = selection.chosen(default=["*"])
    images = find_images(inputs, recursive=recursive)
    extractor = load_extractor(model, machine)
    with progress("activations") as bar:
        report = measure_properties(
            extractor, images, names, options.plain(), batch_size=machine.batch_size, on_name=bar
        )
    make_folder(output.output.parent)
    report.to_json(output.output)
    try:
        report.chart(chart)
    except ImportError as error:
        warn(str(error))
    if output.json:
        for row in report.rows:
            emit(asdict(row))
        return
    from rich.table import Table

    table = Table("activation", *(figure.replace("_", " ") for figure in FIGURES))
    for row in report.rows:
        values = [getattr(row, figure) for figure in FIGURES]
        table.add_row(row.name, *("" if value is None else f"{value:.3f}" for value in values))
    show(table)
    note(
        f"{plural(len(report.rows), 'activation')} measured on {plural(len(images), 'image')}; look at "
        f"{output.output}"
    )
