# SPDX-License-Identifier: Apache-2.0
from .config import SemanIRConfig as SemanIRConfig
from .model import SemanIR as SemanIR
from .options import RestoreOptions as RestoreOptions
from .options import VideoOptions as VideoOptions
from .restorer import Restorer as Restorer
from .weights import shipped_models as shipped_models

__version__: str
