# SPDX-License-Identifier: Apache-2.0
"""``diffeat search``: the images of a store that are most similar to others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import Device, Report, emit, progress, show
from cyclopts import Group, Parameter

from diffeat.cli.frame import Selection, find_images, load_extractor, note, plural

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor


@Parameter(name="*", group=Group("Search", sort_key=2))
@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How images are searched.

    Attributes:
        top: Number of images found for each.
        exact: Compare with every image of the store instead of following the graph.
        prompt: Prompt of the images that are searched for.
    """

    top: int = 10
    exact: Annotated[bool, Parameter(negative="")] = False
    prompt: str = ""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"--top must be at least 1, got {self.top}")


def search(
    store: str,
    inputs: list[str],
    /,
    *,
    selection: Selection = Selection(),
    options: Search = Search(),
    machine: Device = Device(),
    model: str | None = None,
    report: Report = Report(),
) -> None:
    """Find the images of a store that are most similar to others.

    Images are compared by the averages of their activations. An image that is in the store needs no model.
    The index is built once, beside the features, and takes in what was added since.

    **Examples**

        diffeat search features/ cat.jpg
        diffeat search features/ queries/ -n "up-level1-*-cross-q" --top 3 --json

    Args:
        store: Folder of a store made by diffeat extract.
        inputs: Files, folders, or quoted globs.
        model: Shipped name, folder or hub id of a pipeline; by default that of the store.
    """
    from diffeat.store.search import NeighbourIndex
    from diffeat.store.store import FeatureStore

    images = find_images(inputs, recursive=False)
    opened = FeatureStore(store)
    index = NeighbourIndex(opened, selection.chosen(default=opened.match()))
    with progress("images in the index") as bar:
        index.update(bar)
    settings = opened.settings
    assert settings is not None  # there is an index
    loaded: list[FeatureExtractor] = []

    def extractor() -> FeatureExtractor:
        if not loaded:
            loaded.append(load_extractor(model or settings.model, machine))
        return loaded[0]

    for image in images:
        vector = index.describe(image, extractor, options.prompt)
        (found,) = index.find(vector, options.top, exact=options.exact)
        rows = [(each.item.source, each.item.row, round(each.similarity, 4)) for each in found]
        if report.json:
            keys = ("image", "row", "similarity")
            emit({"input": str(image), "found": [dict(zip(keys, row, strict=True)) for row in rows]})
            continue
        from rich.table import Table

        table = Table("similarity", "row", "image", title=str(image))
        for source, row, similarity in rows:
            table.add_row(f"{similarity:.4f}", str(row), source)
        show(table)
    note(f"{plural(len(images), 'image')} searched for among {len(index)}")
