# SPDX-License-Identifier: Apache-2.0
"""The vision language model: backbones, regions, signals, masks, synergy."""

from vitron.model.configuration import VitronConfig
from vitron.model.modeling import VitronForConditionalGeneration, VitronOutput
from vitron.model.processing import Batch, VitronProcessor
from vitron.model.templates import TEMPLATES, ChatTemplate

__all__ = [
    "TEMPLATES",
    "Batch",
    "ChatTemplate",
    "VitronConfig",
    "VitronForConditionalGeneration",
    "VitronOutput",
    "VitronProcessor",
]
