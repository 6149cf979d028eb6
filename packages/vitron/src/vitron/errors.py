# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as types; each message is one sentence for the user."""

from __future__ import annotations

from pydantic import ValidationError

__all__ = [
    "DataError",
    "MediaError",
    "MemoryBudgetError",
    "NotSetUpError",
    "PlanError",
    "RegionError",
    "SpecialistError",
    "SpecialistTimeoutError",
    "UnsupportedRequestError",
    "explain",
]


class RegionError(ValueError):
    """A region is none, lies outside its picture, or cannot be turned into another kind."""


class DataError(ValueError):
    """A file of a data set cannot be read, or does not hold what its format asks for."""


class MediaError(ValueError):
    """A picture or a clip cannot be read, is too large, or is of the wrong shape."""


class PlanError(ValueError):
    """A call cannot be carried out: its input is missing, or it names what does not exist."""


class SpecialistError(RuntimeError):
    """A specialist failed, or none can do what was asked."""


class UnsupportedRequestError(SpecialistError):
    """A specialist does this task, but not as it was asked; the next one may."""


class NotSetUpError(SpecialistError):
    """A specialist is known, but its package is not installed or no model was named for it."""


class SpecialistTimeoutError(SpecialistError):
    """A specialist was given up because it took too long."""


class MemoryBudgetError(SpecialistError):
    """A specialist needs more memory than there is, even with all others unloaded."""


def explain(error: BaseException) -> str:
    """Return what an error says on one line, the first problem alone if there are many.

    Args:
        error: Any exception; of a :class:`pydantic.ValidationError` the place and the rule are named.
    """
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        rule = first["msg"].removeprefix("Value error, ")
        return f"{place}: {rule}" if place else rule
    return " ".join(str(error).split()) or type(error).__name__
