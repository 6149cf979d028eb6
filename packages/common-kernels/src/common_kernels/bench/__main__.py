# SPDX-License-Identifier: Apache-2.0
"""``python -m common_kernels.bench``: measure the operators on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from common_kernels.bench.bars import judge
from common_kernels.bench.cases import attention_cases, dictionary_cases, fusion_cases
from common_kernels.bench.report import draw_chart, to_json, to_markdown, write_report
from common_kernels.bench.run import run_cases

_EPILOG = """examples:
  python -m common_kernels.bench --quick
  python -m common_kernels.bench --json out.json --chart out.png --markdown out.md
  python -m common_kernels.bench --from out.json --markdown out.md

Every contender is first compared with a float64 reference; one that is off is shown as failed and not timed.
All contenders of a case run in turn in one process. Close other programs first: a busy core shows.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m common_kernels.bench",
        description="Measure the operators beside what torch alone offers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--op", choices=("knn_attention", "knn_dictionary", "fuse_phase"), help="one operator only"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument(
        "--flex", action="store_true", help="add FlexAttention, which compiles for minutes on a CPU"
    )
    parser.add_argument("--seconds", type=float, help="per case and mode; default 6, or 1 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="write the chart, PNG (needs the extra 'bench')"
    )
    parser.add_argument("--from", dest="source", type=Path, metavar="JSON", help="report on an earlier run")
    return parser


def _page(tables: str, chart: Path | None) -> str:
    """Return the tables as a page of its own, under the chart if one is drawn."""
    picture = f"![Speed-up of every contender]({chart.name})\n\n" if chart else ""
    return (
        f"# Benchmarks\n\nWritten by `python -m common_kernels.bench`; edits are lost.\n\n{picture}{tables}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 1 if a contender of ours disagrees with its reference."""
    options = _parser().parse_args(arguments)
    if options.source is not None:
        report = json.loads(options.source.read_text(encoding="utf-8"))
    else:
        name = (
            ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
        )
        device = torch.device(name)
        cases = [
            *attention_cases(device, quick=options.quick, flex=options.flex),
            *dictionary_cases(device, quick=options.quick),
            *fusion_cases(device, quick=options.quick),
        ]
        cases = [case for case in cases if options.op in (None, case.op)]
        seconds = options.seconds or (1.0 if options.quick else 6.0)
        results = run_cases(cases, device=device, seconds_per_case=seconds)
        report = to_json(results, baselines={case.name: case.baseline for case in cases})
    text = to_markdown(report, judge(report))
    if options.json:
        write_report(report, options.json)
    if options.markdown:
        options.markdown.write_text(_page(text, options.chart), encoding="utf-8")
    if options.chart:
        draw_chart(report, options.chart)
    sys.stdout.write(text)
    wrong = [r for r in report["results"] if r["status"] == "failed" and r["contender"] == "auto"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
