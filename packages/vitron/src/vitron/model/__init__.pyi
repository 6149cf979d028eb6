# SPDX-License-Identifier: Apache-2.0
from .batch import Batch as Batch
from .encoding import ConversationEncoder as ConversationEncoder
from .hf.chat import chat_template as chat_template
from .hf.configuration import VitronConfig as VitronConfig
from .hf.modeling import VitronForConditionalGeneration as VitronForConditionalGeneration
from .hf.modeling import VitronOutput as VitronOutput
