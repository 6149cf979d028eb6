# SPDX-License-Identifier: Apache-2.0
import logging
import math
import warnings

import numpy as np
import pytest
from common_kernels.runtime import export
from common_kernels.runtime.export import ExportError, check_export_extra, largest_difference, quiet_exporter


def test_a_missing_extra_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxruntime" else name)
    check_export_extra("semanir", verify=False)
    with pytest.raises(ImportError, match=r"needs onnxruntime: pip install \"semanir\[export\]\""):
        check_export_extra("semanir", verify=True)


def test_the_exporter_is_silent_only_inside():
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    with quiet_exporter():
        warnings.warn("of the exporter", stacklevel=1)
        assert logger.level == logging.ERROR
    assert logger.level == before


def test_the_largest_difference_of_all_outputs():
    ours = [np.zeros((2, 3)), np.array([1.0, 5.0])]
    assert largest_difference(ours, [np.full((2, 3), 0.25), np.array([1.0, 4.5])]) == 0.5
    assert largest_difference(ours, ours) == 0
    assert largest_difference([np.zeros((0, 3))], [np.zeros((0, 3))]) == 0


def test_a_nan_is_a_difference():
    assert math.isinf(largest_difference([np.zeros(2)], [np.array([0.0, math.nan])]))


def test_other_shapes_are_refused():
    with pytest.raises(ExportError, match=r"\(2,\)\] instead of \[\(3,\)"):
        largest_difference([np.zeros(3)], [np.zeros(2)])
