# SPDX-License-Identifier: Apache-2.0
from .chat_templates import CHAT_TEMPLATES as CHAT_TEMPLATES
from .chat_templates import ChatTemplate as ChatTemplate
from .configuration import VitronConfig as VitronConfig
from .image_processing import VitronImageProcessor as VitronImageProcessor
from .modeling import VitronForConditionalGeneration as VitronForConditionalGeneration
from .modeling import VitronOutput as VitronOutput
from .processing import VitronProcessor as VitronProcessor
