# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that first check what they time: cases, measurements, reports.

``python -m common_kernels.bench --help`` runs the operators' own; other packages declare their cases with
:class:`Case` and run them by :func:`run_cases`.
"""

from common_kernels.bench.case import Case, Measurement, Problem
from common_kernels.bench.report import to_json, to_markdown
from common_kernels.bench.run import run_cases

__all__ = ["Case", "Measurement", "Problem", "run_cases", "to_json", "to_markdown"]
