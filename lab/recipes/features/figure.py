# SPDX-License-Identifier: Apache-2.0
"""One figure of the study: every activation's score along the model, for each kind of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffeat.charts import colour_of, figure, save
from diffeat.ranking import Ranking
from matplotlib.patches import Patch

from recipes.features.scenes import TITLES, Kind
from recipes.features.sets import row_of


def draw_figure(
    names: Sequence[str],
    rankings: Mapping[Kind, Ranking],
    marks: Mapping[str, Mapping[Kind, tuple[str, ...]]],
    path: Path,
) -> None:
    """Draw scores in execution order.

    Args:
        names: Activations in execution order.
        rankings: Ranking of all activations by kind of labels.
        marks: Sets to point out: title, then names by kind.
        path: PNG.
    """
    sheet = figure((11.0, 2.5 * len(rankings) + 0.8))
    panels = sheet.subplots(len(rankings), 1, sharex=True, squeeze=False)[:, 0]
    place = {name: i for i, name in enumerate(names)}
    for axes, (kind, ranking) in zip(panels, rankings.items(), strict=True):
        rows = [row_of(ranking, name) for name in names]
        axes.errorbar(
            range(len(rows)),
            [row.mean for row in rows],
            yerr=[row.deviation for row in rows],
            fmt="none",
            ecolor="#cccccc",
            elinewidth=0.8,
            zorder=1,
        )
        axes.scatter(
            range(len(rows)),
            [row.mean for row in rows],
            c=[colour_of(row.family) for row in rows],
            s=16,
            zorder=2,
        )
        for (title, by_kind), shape in zip(marks.items(), ("s", "o", "D"), strict=False):
            chosen = [name for name in by_kind[kind] if name in place]
            axes.scatter(
                [place[name] for name in chosen],
                [row_of(ranking, name).mean for name in chosen],
                s=90,
                marker=shape,
                facecolors="none",
                edgecolors="#222222",
                linewidths=1.1,
                label=title,
                zorder=3,
            )
        axes.set_ylabel(ranking.metric)
        axes.set_title(TITLES[kind], fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4)
        first = next(i for i, name in enumerate(names) if name.startswith("up-"))
        axes.axvspan(first - 0.5, len(names) - 1.5, color="#eef3f8", zorder=0)
    panels[0].legend(fontsize=7, loc="upper left")
    families = dict.fromkeys(row_of(next(iter(rankings.values())), name).family for name in names)
    patches = [Patch(color=colour_of(family), label=family) for family in families]
    sheet.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8)
    panels[-1].set_xlabel("activations in execution order; the up stage is shaded")
    save(sheet, path)
