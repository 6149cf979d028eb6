# SPDX-License-Identifier: Apache-2.0
from .calls import CallResult as CallResult
from .calls import PlannedCall as PlannedCall
from .conversation import Conversation as Conversation
from .events import CallEvent as CallEvent
from .events import DoneEvent as DoneEvent
from .events import Event as Event
from .events import IssueEvent as IssueEvent
from .events import MessageEvent as MessageEvent
from .events import ResultEvent as ResultEvent
from .events import RetryEvent as RetryEvent
from .events import TextEvent as TextEvent
