# SPDX-License-Identifier: Apache-2.0
from .encoding import Batch as Batch
from .encoding import ConversationEncoder as ConversationEncoder
from .hf.chat_templates import CHAT_TEMPLATES as CHAT_TEMPLATES
from .hf.chat_templates import ChatTemplate as ChatTemplate
from .hf.configuration import VitronConfig as VitronConfig
from .hf.image_processing import VitronImageProcessor as VitronImageProcessor
from .hf.modeling import VitronForConditionalGeneration as VitronForConditionalGeneration
from .hf.modeling import VitronOutput as VitronOutput
from .hf.processing import VitronProcessor as VitronProcessor
