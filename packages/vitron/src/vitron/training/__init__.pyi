# SPDX-License-Identifier: Apache-2.0
from .callbacks import LastCheckpoint as LastCheckpoint
from .callbacks import TrainableSetCheck as TrainableSetCheck
from .data import MixedTasks as MixedTasks
from .data import VitronData as VitronData
from .folders import FolderData as FolderData
from .module import VitronModule as VitronModule
from .options import StageOverrides as StageOverrides
from .options import TrainerOptions as TrainerOptions
from .run import fit_stage as fit_stage
from .stages import Stage as Stage
from .stages import list_stages as list_stages
from .stages import load_stage as load_stage
