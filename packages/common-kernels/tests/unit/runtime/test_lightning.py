# SPDX-License-Identifier: Apache-2.0
import logging
import warnings

import pytest
from common_kernels.runtime.lightning import expected_warnings, quiet_lightning


def test_what_a_run_does_on_purpose_is_not_warned_of():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with expected_warnings("Mine"):
            for message in (
                "The 'train_dataloader' does not have many workers",
                "... and your dataloader is not resumable.",
                "Checkpoint directory /a exists and is not empty.",
                "`isinstance(treespec, LeafSpec)` is deprecated",
                "Mine is meant",
                "this is not",
            ):
                warnings.warn(message, stacklevel=1)
        warnings.warn("Mine is meant", stacklevel=1)
    assert [str(each.message) for each in told] == ["this is not", "Mine is meant"]


def test_lightning_tells_warnings_alone():
    pytest.importorskip("pytorch_lightning")
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [each.level for each in loggers]
    try:
        quiet_lightning()
        assert [each.level for each in loggers] == [logging.WARNING] * 2
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
