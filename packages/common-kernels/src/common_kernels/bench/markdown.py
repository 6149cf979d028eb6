# SPDX-License-Identifier: Apache-2.0
"""The page that is made from the results and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from common_kernels.bench.case import MODES, Mode
from common_kernels.bench.requirements import check_requirements
from common_kernels.bench.results import Measurement, Report

_TITLES = {
    "knn_attention": "`knn_attention`",
    "knn_dictionary": "`knn_dictionary`",
    "selection": "Selection inside `knn_dictionary`: scores given",
    "fuse_phase": "`fuse_phase`",
    "stage": "A stage: one dictionary and the layers that share it",
}
_INTRODUCTION = """# Benchmarks

Written by `python -m common_kernels.bench` from the results in `packages/common-kernels/benchmarks/results`;
edits are lost. A contender that disagrees with the float64 reference, in its output or in a gradient, is
shown as failed and not timed.

- **ms** is the median of interleaved runs with the 20 % and 80 % quantiles. In italics: the contender's time
  over that of `auto` in the same rounds; above 1, `auto` is faster.
- **first** is one forward from nothing but inputs and index lists, masks and other forms included, in ms. The
  timed runs find those built, as the later layers of a stage do.
- **peak** is the most memory held beyond the inputs during that first forward, and during a first forward and
  backward, in MiB.
- **roofline** is the share of the time of the forward, and of forward and backward, that the copy and matmul
  rates of the same run make unavoidable, for the listed pairs alone.
- **error** is the largest relative l2 error of output and gradients against float64. What computes something
  else, such as attention without the mask, has none: it is there as a bound.
"""
_MODE_HEADS: dict[Mode, str] = {"forward": "forward, ms", "backward": "backward, ms", "both": "both, ms"}


def to_markdown(
    reports: Sequence[Report],
    charts: Mapping[str, str] | None = None,
    memory_charts: Mapping[str, str] | None = None,
) -> str:
    """Return one page on all reports.

    Args:
        reports: Reports in the order of the page.
        charts: File names of charts by the slug of the machine.
        memory_charts: Those of the memory.
    """
    lines = [_INTRODUCTION]
    for report in reports:
        lines += _section(report, (charts or {}).get(report.machine.slug))
        lines += _memory(report, (memory_charts or {}).get(report.machine.slug))
    if not reports:
        lines.append("Nothing has been measured yet.")
    return "\n".join(lines).rstrip() + "\n"


def _section(report: Report, chart: str | None) -> Iterable[str]:
    m = report.machine
    threads = "" if m.kind == "cuda" else f", {m.threads} threads"
    triton = "" if m.triton is None else f", triton {m.triton}"
    yield f"## {m.device}{threads}\n"
    yield (
        f"{m.date}, commit {m.commit or 'unknown'}, common-kernels {m.common_kernels}, torch {m.torch}"
        f"{triton}, Python {m.python}. Copy {m.copy_gb_s:.3g} GB/s, matmul {m.matmul_tflop_s:.3g} TFLOP/s"
        f"{', a quick run' if report.is_quick else ''}.\n"
    )
    if m.load is not None and m.load > 0.5 and m.kind == "cpu":
        yield f"Other work was running, a load of {m.load:.1f} at the start: read with care.\n"
    if chart is not None:
        yield f"![Time of every contender over that of auto]({chart})\n"
    yield from _requirements(report)
    for op in dict.fromkeys(row.op for row in report.measurements if row.op != "memory"):
        yield from _table(op, [row for row in report.measurements if row.op == op])


def _requirements(report: Report) -> Iterable[str]:
    yield "| requirement | target | worst | where | |\n| --- | --- | --- | --- | --- |"
    for found in check_requirements(report):
        worst = "" if found.worst is None else f"{found.worst:.3g}"
        count = f" ({found.misses} of {found.figures})" if found.misses else ""
        yield f"| {found.name} | {found.target} | {worst} | {found.where} | **{found.result}**{count} |"
    yield ""


def _table(op: str, rows: Sequence[Measurement]) -> Iterable[str]:
    modes: list[Mode] = [mode for mode in MODES if any(row.mode == mode for row in rows)]
    heads = [
        "case",
        "contender",
        *(_MODE_HEADS[mode] for mode in modes),
        "first",
        "peak",
        "roofline",
        "error",
    ]
    yield f"### {_TITLES.get(op, f'`{op}`')}\n"
    yield f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}"
    grouped: dict[tuple[str, str], dict[Mode, Measurement]] = {}
    for row in rows:
        grouped.setdefault((row.case, row.contender), {})[row.mode] = row
    previous = ""
    for (case, contender), by_mode in grouped.items():
        if all(row.note == "is what auto runs" for row in by_mode.values()):
            continue
        cells = [case if case != previous else "", _name(contender, by_mode)]
        cells += _times(by_mode, modes)
        yield f"| {' | '.join([*cells, *_facts(by_mode)])} |"
        previous = case
    yield ""


def _memory(report: Report, chart: str | None) -> Iterable[str]:
    """Yield peaks by window and list length, a column for each contender."""
    rows = [row for row in report.measurements if row.op == "memory" and row.mode in ("forward", "both")]
    if not rows:
        return
    names = list(dict.fromkeys(row.contender for row in rows))
    first = rows[0].shape
    yield "### Memory over window and list length\n"
    yield (
        "Peak of a first forward, and of a first forward and backward, in MiB: "
        f"{first['B'] * first['N']} tokens, {first['heads']} heads of {first['head_dim']}, {rows[0].dtype}.\n"
    )
    if chart is not None:
        yield f"![Peak memory over the tokens of a window]({chart})\n"
    yield f"| case | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}"
    peaks = {(row.case, row.contender, row.mode): row.peak_bytes for row in rows}
    for case in dict.fromkeys(row.case for row in rows):
        cells = [
            ", ".join(
                "-" if peak is None else f"{peak / 2**20:.3g}"
                for peak in (peaks.get((case, name, mode)) for mode in ("forward", "both"))
            )
            for name in names
        ]
        yield f"| {' | '.join([case, *cells])} |"
    yield ""


def _name(contender: str, by_mode: Mapping[Mode, Measurement]) -> str:
    row = next(iter(by_mode.values()))
    if row.kind != "auto":
        return contender
    return f"**auto** ({row.note})" if row.note and row.status == "measured" else "**auto**"


def _times(by_mode: Mapping[Mode, Measurement], modes: Sequence[Mode]) -> list[str]:
    """Return a cell for each mode; a reason that several share is given once."""
    cells, said = list[str](), ""
    for mode in modes:
        row = by_mode.get(mode)
        if row is None:
            cells.append("")
        elif row.status == "measured":
            cells.append(_time(row))
        else:
            reason = f"{row.status}: {row.note}".replace("|", "/")
            cells.append("" if reason == said else reason)
            said = reason
    return cells


def _time(row: Measurement) -> str:
    if row.median_ms is None or row.low_ms is None or row.high_ms is None:
        return ""
    spread = f" ({row.low_ms:.3g} to {row.high_ms:.3g})" if row.runs > 1 else ""
    ratio = f" *{row.ratio:.2f}*" if row.ratio is not None and row.kind != "auto" else ""
    return f"{row.median_ms:.3g}{spread}{ratio}"


def _facts(by_mode: Mapping[Mode, Measurement]) -> list[str]:
    forward, both = by_mode.get("forward"), by_mode.get("both")
    first = "" if forward is None or forward.first_ms is None else f"{forward.first_ms:.3g}"
    peaks = [f"{row.peak_bytes / 2**20:.3g}" for row in (forward, both) if row and row.peak_bytes is not None]
    shares = [f"{100 * row.roofline:.0f} %" for row in (forward, both) if row and row.roofline is not None]
    errors = [row.error for row in by_mode.values() if row.error is not None]
    return [first, ", ".join(peaks), ", ".join(shares), f"{max(errors):.0e}" if errors else ""]
