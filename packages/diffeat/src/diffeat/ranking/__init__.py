# SPDX-License-Identifier: Apache-2.0
"""Which activations are worth taking: judged by a user's labels, or measured without any."""

from diffeat.ranking.labels import KeypointLabels, LabelError, MaskLabels
from diffeat.ranking.probes import LogisticProbe, MLPEnsemble
from diffeat.ranking.properties import Properties, PropertyReport, measure_properties
from diffeat.ranking.ranker import Ranker
from diffeat.ranking.report import Ranked, Ranking
from diffeat.ranking.tasks import Setup

__all__ = [
    "KeypointLabels",
    "LabelError",
    "LogisticProbe",
    "MLPEnsemble",
    "MaskLabels",
    "Properties",
    "PropertyReport",
    "Ranked",
    "Ranker",
    "Ranking",
    "Setup",
    "measure_properties",
]
