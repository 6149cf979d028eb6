# SPDX-License-Identifier: Apache-2.0
"""The vision language model: backbones, regions, signals, masks, synergy."""

from vitron.model.configuration import VitronConfig
from vitron.model.modeling import VitronForConditionalGeneration, VitronOutput
from vitron.model.processing import TEMPLATES, Batch, ChatTemplate, VitronProcessor

__all__ = [
    "TEMPLATES",
    "Batch",
    "ChatTemplate",
    "VitronConfig",
    "VitronForConditionalGeneration",
    "VitronOutput",
    "VitronProcessor",
]
