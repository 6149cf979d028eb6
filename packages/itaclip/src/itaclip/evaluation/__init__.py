# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: their files, their scores, and what others published."""

from itaclip.evaluation.datasets import LAYOUTS, Dataset, Layout, Sample, SampleError, open_dataset
from itaclip.evaluation.folders import open_folder
from itaclip.evaluation.metrics import Scores, confusion
from itaclip.evaluation.published import Published, published
from itaclip.evaluation.run import Evaluation, Failure, ImageScore, Outcome, evaluate

__all__ = [
    "LAYOUTS",
    "Dataset",
    "Evaluation",
    "Failure",
    "ImageScore",
    "Layout",
    "Outcome",
    "Published",
    "Sample",
    "SampleError",
    "Scores",
    "confusion",
    "evaluate",
    "open_dataset",
    "open_folder",
    "published",
]
