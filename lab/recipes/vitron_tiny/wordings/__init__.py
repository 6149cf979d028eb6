# SPDX-License-Identifier: Apache-2.0
"""Wordings of user messages by task, each with forms of training and held-out ones.

:func:`worded` takes canonical words for the slots, those of the instruction, and rewords them itself.
Families stand by themselves (``SEGMENT``), or by kind in a dictionary: ``EDITS``, ``RESTORE``, ``CHAINS``,
``WORDINGS`` (questions), ``CHAT`` (with the reply) and ``FOLLOW_UPS``. Their modules name the slots.
"""

from recipes.vitron_tiny.wordings.earlier import EARLIER
from recipes.vitron_tiny.wordings.editing import EDITS
from recipes.vitron_tiny.wordings.followups import FOLLOW_UPS as _FOLLOW_UPS
from recipes.vitron_tiny.wordings.forms import Family, worded
from recipes.vitron_tiny.wordings.generation import ANIMATE, CHAINS, DRAW, FILM
from recipes.vitron_tiny.wordings.images import CAPTION, GROUND, GROUND_ORDER, REGION, RESTORE, SEGMENT
from recipes.vitron_tiny.wordings.phrases import said
from recipes.vitron_tiny.wordings.plurals import PLURALS
from recipes.vitron_tiny.wordings.questions import WORDINGS
from recipes.vitron_tiny.wordings.talk import CHAT, TAGS
from recipes.vitron_tiny.wordings.videos import CHANGES, COUNT, EVENT, MOVES, RECOLOUR, SPAN, TRACK, WAY

FOLLOW_UPS: dict[str, Family] = {**_FOLLOW_UPS, **PLURALS, **EARLIER}
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
