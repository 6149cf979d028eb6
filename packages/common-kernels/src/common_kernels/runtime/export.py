# SPDX-License-Identifier: Apache-2.0
"""Files of a network for other programs: what writing and checking an ONNX file needs around the exporter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ONNX_OPSET",
    "ExportError",
    "check_export_extra",
    "largest_difference",
    "open_onnx",
    "quiet_exporter",
]

ONNX_OPSET = 20


class ExportError(RuntimeError):
    """The exported file does not compute what the model does."""


def check_export_extra(package: str, *, verify: bool) -> None:
    """Check that what an ONNX export imports is installed.

    Args:
        package: Name of the package, whose extra ``export`` the message names.
        verify: Whether the file will be run, too.

    Raises:
        ImportError: If onnx, onnxscript or, to verify, onnxruntime is missing.
    """
    needed = ("onnx", "onnxscript", "onnxruntime") if verify else ("onnx", "onnxscript")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ImportError(f'export needs {" and ".join(missing)}: pip install "{package}[export]"')


@contextmanager
def quiet_exporter() -> Generator[None]:
    """Silence the reports of torch's exporters on their own passes."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def open_onnx(path: str | Path) -> Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]:
    """Return a function from the inputs of an ONNX file, by name, to its outputs, computed on the CPU."""
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))


def largest_difference(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> float:
    """Return the largest difference of the outputs of a model and of its file; infinite if one is NaN.

    Raises:
        ExportError: If numbers or shapes of the outputs differ.
    """
    if [each.shape for each in ours] != [each.shape for each in theirs]:
        raise ExportError(
            f"shapes differ: {[each.shape for each in theirs]} instead of {[each.shape for each in ours]}"
        )
    largest = 0.0
    for one, other in zip(ours, theirs, strict=True):
        difference = float(np.abs(one - other).max(initial=0.0))
        # no comparison finds a NaN
        largest = max(largest, difference) if difference == difference else float("inf")
    return largest
