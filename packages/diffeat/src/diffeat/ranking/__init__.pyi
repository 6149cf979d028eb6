# SPDX-License-Identifier: Apache-2.0
from .labels import KeypointLabels as KeypointLabels
from .labels import LabelError as LabelError
from .labels import MaskLabels as MaskLabels
from .probes import LogisticProbe as LogisticProbe
from .probes import MLPEnsemble as MLPEnsemble
from .properties import Properties as Properties
from .properties import PropertyReport as PropertyReport
from .properties import measure_properties as measure_properties
from .ranker import Ranker as Ranker
from .report import Ranked as Ranked
from .report import Ranking as Ranking
