# SPDX-License-Identifier: Apache-2.0
from .configuration import VitronConfig as VitronConfig
from .modeling import VitronForConditionalGeneration as VitronForConditionalGeneration
from .modeling import VitronOutput as VitronOutput
