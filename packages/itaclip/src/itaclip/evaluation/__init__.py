# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: their files, their scores, and what others published."""

from itaclip.evaluation.datasets import LAYOUTS, Dataset, Layout, Sample, SampleError, open_dataset
from itaclip.evaluation.metrics import Scores, confusion
from itaclip.evaluation.published import Published, published
from itaclip.evaluation.run import Evaluation, Failure, evaluate

__all__ = [
    "LAYOUTS",
    "Dataset",
    "Evaluation",
    "Failure",
    "Layout",
    "Published",
    "Sample",
    "SampleError",
    "Scores",
    "confusion",
    "evaluate",
    "open_dataset",
    "published",
]
