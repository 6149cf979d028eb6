# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that first check what they time: cases, measurements, reports.

``python -m common_kernels.bench --help`` runs the operators' own; other packages declare their cases with
:class:`Case` and run them by :func:`run_cases`.
"""

from common_kernels.bench.case import Case, Contender, Inputs
from common_kernels.bench.machine import describe_machine
from common_kernels.bench.markdown import to_markdown
from common_kernels.bench.requirements import Requirement, check_requirements
from common_kernels.bench.results import Machine, Measurement, Report
from common_kernels.bench.run import run_cases

__all__ = [
    "Case",
    "Contender",
    "Inputs",
    "Machine",
    "Measurement",
    "Report",
    "Requirement",
    "check_requirements",
    "describe_machine",
    "run_cases",
    "to_markdown",
]
