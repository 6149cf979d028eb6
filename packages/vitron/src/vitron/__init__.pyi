# SPDX-License-Identifier: Apache-2.0
from .model.engine import Vitron as Vitron
from .protocol.contract import Instruction as Instruction
from .protocol.contract import Invocation as Invocation
from .protocol.contract import Region as Region
from .protocol.contract import SpecialistSpec as SpecialistSpec
from .protocol.contract import Turn as Turn
from .protocol.escape import escape as escape
from .protocol.grammar import call_grammar as call_grammar
from .protocol.media import Artefact as Artefact
from .protocol.parser import StreamParser as StreamParser
from .protocol.parser import parse as parse
from .protocol.render import render as render
from .protocol.sampling import SamplingParams as SamplingParams
from .session.conversation import Conversation as Conversation
from .specialists.protocol import Specialist as Specialist
from .specialists.registry import SpecialistRegistry as SpecialistRegistry

__version__: str
