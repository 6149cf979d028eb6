# SPDX-License-Identifier: Apache-2.0
"""Wordings of user messages by task, each with forms of training and held-out ones.

:func:`worded` takes canonical words for the slots, those of the instruction, and rewords them itself.
Families stand by themselves (``SEGMENT``), or by kind in a dictionary: ``EDITS``, ``RESTORE``, ``CHAINS``,
``WORDINGS`` (questions), ``CHAT`` (with the reply) and ``FOLLOW_UPS``. Their modules name the slots and hold
the commonest forms and the held-out ones; ``paraphrases/`` has most forms of training.
"""

from recipes.vitron_tiny.wordings import (
    earlier,
    editing,
    followups,
    generation,
    images,
    plurals,
    questions,
    talk,
    videos,
)
from recipes.vitron_tiny.wordings.forms import Family, worded
from recipes.vitron_tiny.wordings.phrases import said
from recipes.vitron_tiny.wordings.widening import widen, widen_all

CAPTION = widen("CAPTION", images.CAPTION)
GROUND = widen("GROUND", images.GROUND)
GROUND_ORDER = widen("GROUND_ORDER", images.GROUND_ORDER)
REGION = widen("REGION", images.REGION)
SEGMENT = widen("SEGMENT", images.SEGMENT)
RESTORE = widen_all("RESTORE", images.RESTORE)
EDITS = widen_all("EDITS", editing.EDITS)
DRAW = widen("DRAW", generation.DRAW)
FILM = widen("FILM", generation.FILM)
ANIMATE = widen("ANIMATE", generation.ANIMATE)
CHAINS = widen_all("CHAINS", generation.CHAINS)
TRACK = widen("TRACK", videos.TRACK)
RECOLOUR = widen("RECOLOUR", videos.RECOLOUR)
SPAN = widen("SPAN", videos.SPAN)
EVENT = widen("EVENT", videos.EVENT)
COUNT = widen("COUNT", videos.COUNT)
CHANGES = widen("CHANGES", videos.CHANGES)
MOVES = widen("MOVES", videos.MOVES)
WAY = widen("WAY", videos.WAY)
WORDINGS = widen_all("WORDINGS", questions.WORDINGS)
TAGS = widen("TAGS", talk.TAGS)
CHAT = {kind: (widen(f"CHAT.{kind}", family), reply) for kind, (family, reply) in talk.CHAT.items()}
FOLLOW_UPS = widen_all("FOLLOW_UPS", {**followups.FOLLOW_UPS, **plurals.PLURALS, **earlier.EARLIER})
"""Messages that refer to an earlier turn, and those about several objects ("segment_all", "remove_both")."""

__all__ = [
    "ANIMATE",
    "CAPTION",
    "CHAINS",
    "CHANGES",
    "CHAT",
    "COUNT",
    "DRAW",
    "EDITS",
    "EVENT",
    "FILM",
    "FOLLOW_UPS",
    "GROUND",
    "GROUND_ORDER",
    "MOVES",
    "RECOLOUR",
    "REGION",
    "RESTORE",
    "SEGMENT",
    "SPAN",
    "TAGS",
    "TRACK",
    "WAY",
    "WORDINGS",
    "Family",
    "said",
    "worded",
]
