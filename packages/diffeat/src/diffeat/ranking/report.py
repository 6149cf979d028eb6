# SPDX-License-Identifier: Apache-2.0
"""Rankings as table, JSON and chart."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common_kernels.runtime.files import write_json

from diffeat.charts import colour_of, figure, legend, save

if TYPE_CHECKING:
    from rich.table import Table

_MOST_BARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """An activation, or several taken together, with score and cost.

    Attributes:
        names: Names of the activations.
        mean: Mean score over the folds.
        deviation: Standard deviation over the folds.
        scores: Score of each fold.
        channels: Number of channels in all.
        bytes: Size of one image's activations in half precision.
        flop_share: Cost as a share of a pass; ``None`` if unknown.
        family: Family in the paper's taxonomy, or ``"set"``.
    """

    names: tuple[str, ...]
    mean: float
    deviation: float
    scores: tuple[float, ...]
    channels: int
    bytes: int
    flop_share: float | None
    family: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Activations with their scores.

    Attributes:
        rows: Activations, best first; of a selection, one row per step.
        metric: Name of the score, ``"mIoU"`` or ``"PCK"``.
        settings: Settings that the scores depend on, as JSON values.
    """

    rows: tuple[Ranked, ...]
    metric: str
    settings: dict[str, Any]

    def table(self, top: int | None = None, *, title: str | None = None) -> Table:
        """A table for the terminal.

        Args:
            top: Number of rows shown; all if ``None``.
            title: Title above the table.
        """
        from rich.table import Table

        table = Table(title=title)
        costs = any(
            row.flop_share is not None for row in self.rows
        )  # features in memory have no further cost
        for name, side in (
            ("", "right"),
            ("activation", "left"),
            (self.metric, "right"),
            ("channels", "right"),
            ("KiB", "right"),
            *((("FLOP", "right"),) if costs else ()),
        ):
            table.add_column(name, justify=side, no_wrap=name != "activation")  # type: ignore[arg-type]
        for place, row in enumerate(self.rows[:top], 1):
            cells = [
                str(place),
                "\n".join(row.names),
                f"{row.mean:.3f} ± {row.deviation:.3f}",
                str(row.channels),
                f"{row.bytes / 1024:.0f}",
            ]
            if costs:
                cells.append("" if row.flop_share is None else f"{100 * row.flop_share:.0f} %")
            table.add_row(*cells)
        return table

    def to_json(self, path: str | Path) -> None:
        """Write everything.

        Args:
            path: File.
        """
        write_json(path, asdict(self))

    @classmethod
    def from_json(cls, path: str | Path) -> Ranking:
        """Read a file of :meth:`to_json`.

        Args:
            path: File.

        Raises:
            ValueError: If the file has another format.
        """
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
            rows = [
                Ranked(
                    **cast("dict[str, Any]", {**row, **{key: tuple(row[key]) for key in ("names", "scores")}})
                )
                for row in content["rows"]
            ]
            return cls(tuple(rows), content["metric"], content["settings"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a ranking written by diffeat") from error

    def chart(self, path: str | Path, *, top: int = _MOST_BARS) -> None:
        """Draw the scores as bars with their deviation, best on top, a colour per family.

        Args:
            path: PNG, PDF or SVG.
            top: Number of bars shown.

        Raises:
            ImportError: If matplotlib is missing.
        """
        shown = self.rows[:top]
        sheet = figure((9.0, 1.4 + 0.22 * len(shown)))
        axes = sheet.add_subplot()
        colours = [colour_of(row.family) for row in shown]
        places = list(range(len(shown)))
        axes.barh(
            places,
            [row.mean for row in shown],
            xerr=[row.deviation for row in shown],
            color=colours,
            error_kw={"linewidth": 0.8, "ecolor": "#444444"},
        )
        labels = [" + ".join(row.names) if len(row.names) < 3 else f"+ {row.names[-1]}" for row in shown]
        axes.set_yticks(places, labels, fontsize=7)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set_xlabel(f"{self.metric}, mean and deviation over folds of images")
        part = (
            f"the best {len(shown)} of {len(self.rows)}" if len(shown) < len(self.rows) else f"{len(shown)}"
        )
        axes.set_title(f"{self.metric} of {part} activations, on images held out", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", linewidth=0.4)
        legend(axes, [row.family for row in shown])
        save(sheet, path)
