# SPDX-License-Identifier: Apache-2.0
"""Training on Lightning; the only part of the package that imports it (extra ``train``)."""

try:
    import pytorch_lightning as _  # noqa: F401
except ImportError as error:  # pragma: no cover - the test environment has the extra
    raise ImportError("semanir.training needs the extra 'train': pip install 'semanir[train]'") from error

from semanir.training.callbacks import AverageWeights, LastCheckpoint, SampleImages, SaveNetwork
from semanir.training.datamodule import SemanIRData
from semanir.training.module import SemanIRModule
from semanir.training.run import fit, shipped_configs

__all__ = [
    "AverageWeights",
    "LastCheckpoint",
    "SampleImages",
    "SaveNetwork",
    "SemanIRData",
    "SemanIRModule",
    "fit",
    "shipped_configs",
]
