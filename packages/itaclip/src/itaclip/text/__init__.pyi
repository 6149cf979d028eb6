# SPDX-License-Identifier: Apache-2.0
from .answers import Task as Task
from .classes import ClassList as ClassList
from .classes import shipped_classes as shipped_classes
from .embed import TextEmbedder as TextEmbedder
from .embed import text_features as text_features
from .files import TextFileError as TextFileError
from .llm import LLMSource as LLMSource
from .prompts import PromptTooLongError as PromptTooLongError
from .prompts import get_templates as get_templates
from .sources import CallableSource as CallableSource
from .sources import FileSource as FileSource
from .sources import MappingSource as MappingSource
from .sources import TextSource as TextSource
from .sources import as_source as as_source
from .sources import aux_texts as aux_texts
from .sources import shipped_texts as shipped_texts
from .store import default_cache as default_cache
