# SPDX-License-Identifier: Apache-2.0
"""Training on Lightning: stages as data, losses, batches of mixed tasks."""

from vitron.training.data import MixedTasks, VitronData
from vitron.training.module import TrainableSetCheck, VitronModule
from vitron.training.stages import Stage, list_stages, load_stage

__all__ = [
    "MixedTasks",
    "Stage",
    "TrainableSetCheck",
    "VitronData",
    "VitronModule",
    "list_stages",
    "load_stage",
]
