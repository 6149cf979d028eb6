# SPDX-License-Identifier: Apache-2.0
"""``python -m common_kernels.bench``: measure the operators on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from common_kernels.bench.attention_cases import attention_cases, memory_cases
from common_kernels.bench.case import Case
from common_kernels.bench.chart import draw_chart, draw_memory
from common_kernels.bench.dictionary_cases import dictionary_cases, selection_cases, stage_cases
from common_kernels.bench.machine import describe_machine
from common_kernels.bench.markdown import to_markdown
from common_kernels.bench.phase_cases import phase_cases
from common_kernels.bench.requirements import check_requirements
from common_kernels.bench.results import SCHEMA, Report
from common_kernels.bench.run import run_cases

OPERATORS = ("knn_attention", "knn_dictionary", "selection", "stage", "fuse_phase", "memory")
_EPILOG = """examples:
  python -m common_kernels.bench --quick                     the table of a few small sizes, under a minute
  python -m common_kernels.bench --op fuse_phase             one operator only
  python -m common_kernels.bench --json results/ --chart docs/ --markdown docs/benchmarks.md
                                                             keep the results, draw them, write the page
  python -m common_kernels.bench --from results/ --markdown docs/benchmarks.md
                                                             write the page again, measure nothing

how to read it: every contender is first compared with a float64 reference, output and gradients; one that
disagrees is shown as failed and never timed. The contenders of a case then take turns in a shuffled order, so
a busy moment of the machine hits all of them. "auto" is what a user gets; a ratio above 1 means that auto is
faster.

before you trust it: close other programs. OMP_NUM_THREADS sets the threads of a CPU run.
exit code: 0 all agreed, 1 one of our own disagreed with the reference or, except with --quick, a requirement
is missed (each is named on stderr), 2 wrong usage."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m common_kernels.bench",
        description="Measure the operators of common-kernels beside what torch alone offers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a few small sizes, short times")
    parser.add_argument(
        "--op", action="append", choices=OPERATORS, help="one operator; repeat for several (default: all)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    parser.add_argument(
        "--budget",
        type=_positive,
        metavar="SECONDS",
        help="for the timed runs; checks come on top (default: 120, or 12 with --quick)",
    )
    parser.add_argument(
        "--flex", action="store_true", help="let FlexAttention take part on a CPU; compiling takes minutes"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="file for the results; a folder gets <version>/<device>.json",
    )
    parser.add_argument(
        "--chart",
        type=Path,
        metavar="OUT",
        help="PNG; a folder gets benchmarks-<device>.png, and on GPUs one more of the memory (extra: bench)",
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="OUT.md",
        help="page on these results and, if --json is a folder, on all others of this version",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="JSON",
        help="measure nothing, read a file or a folder of them",
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.source is not None:
        reports = read_reports(options.source)
        if not reports:
            parser.error(f"--from {options.source} holds no JSON")
        fresh = reports
    else:
        report = _measure(parser, options)
        fresh = reports = [report]
        if options.json is not None:
            file = _place(options.json, f"{report.machine.common_kernels}/{report.machine.slug}.json")
            report.write(file)
            reports = read_reports(file.parent) if file != options.json else reports
    if options.chart is not None:
        for report in fresh:
            target = _place(options.chart, chart_name(report))
            target.parent.mkdir(parents=True, exist_ok=True)
            draw_chart(report, target)
            draw_memory(report, target.with_name(f"memory-{target.name}"))
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page(reports, options.markdown.parent), encoding="utf-8")
    sys.stdout.write(to_markdown(fresh))
    wrong = [m for report in fresh for m in report.measurements if m.status == "failed" and m.kind != "peer"]
    for m in wrong:
        sys.stderr.write(f"{m.op} {m.case}: {m.contender} failed, {m.mode}: {m.note}\n")
    missed = [found for report in fresh if not report.is_quick for found in check_requirements(report)]
    missed = [found for found in missed if found.result == "missed"]
    for found in missed:
        where = f"{found.worst:.3g} at {found.where}"
        sys.stderr.write(f"missed: {found.name}, wanted {found.target}, measured {where}\n")
    return 1 if wrong or missed else 0


def read_reports(source: Path) -> list[Report]:
    """Read a file, or all JSON files of a folder and its subfolders in the order of their names."""
    files = [source] if source.is_file() else sorted(source.rglob("*.json"))
    return [Report.read(file) for file in files]


def chart_name(report: Report) -> str:
    """Return the file name of a report's chart."""
    return f"benchmarks-{report.machine.slug}.png"


def page(reports: Sequence[Report], folder: Path) -> str:
    """Return the page for a folder; it shows the charts that lie there."""
    names = {r.machine.slug: chart_name(r) for r in reports}
    charts, memory_charts = (
        {slug: f"{kind}{name}" for slug, name in names.items() if (folder / f"{kind}{name}").is_file()}
        for kind in ("", "memory-")
    )
    return to_markdown(reports, charts, memory_charts)


def _place(path: Path, name: str) -> Path:
    """Return the file: ``path`` itself if it names one, else ``name`` below it."""
    return path if path.suffix else path / name


def _measure(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Report:
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA device, and torch sees none; leave it out to use the CPU")
    is_gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if is_gpu else "cpu")
    # torch's profiler, which counts the memory, would report its own start and stop
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    budget = options.budget or (12.0 if options.quick else 120.0)
    _say(f"measuring the ceilings of this machine ({device.type})")
    machine = describe_machine(device)
    measurements = run_cases(
        _cases(device, options.op or OPERATORS, quick=options.quick, flex=options.flex),
        device=device,
        budget=budget,
        machine=machine,
        progress=_say,
    )
    return Report(schema=SCHEMA, machine=machine, is_quick=options.quick, measurements=measurements)


def _cases(device: torch.device, ops: Sequence[str], *, quick: bool, flex: bool) -> list[Case]:
    cases = [
        *attention_cases(device, quick=quick, flex=flex),
        *dictionary_cases(device, quick=quick),
        *selection_cases(device, quick=quick),
        *stage_cases(device, quick=quick),
        *phase_cases(device, quick=quick),
        *([] if quick else memory_cases(device)),
    ]
    return [case for case in cases if case.op in ops]


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
