# SPDX-License-Identifier: Apache-2.0
"""Errors of the package; each message is one sentence for the user."""

from __future__ import annotations

from pydantic import ValidationError

__all__ = [
    "ContextLengthError",
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
    """A region is invalid, lies outside its image, or cannot be converted."""


class DataError(ValueError):
    """A file of a data set cannot be read, or does not hold what its format asks for."""


class MediaError(ValueError):
    """An image or a video cannot be read, is too large, or has the wrong shape."""


class ContextLengthError(ValueError):
    """A conversation is longer than the context of the model."""


class PlanError(ValueError):
    """A call cannot run: its input is missing, or it names something that does not exist."""


class SpecialistError(RuntimeError):
    """A specialist failed, or none can run the call."""


class UnsupportedRequestError(SpecialistError):
    """A specialist does this task, but cannot run this request; the next one is tried."""


class NotSetUpError(SpecialistError):
    """The package of a specialist is not installed, or its model is not set."""


class SpecialistTimeoutError(SpecialistError):
    """A specialist exceeded its timeout and was abandoned."""


class MemoryBudgetError(SpecialistError):
    """A specialist needs more memory than the limit allows, even with all others unloaded."""


def explain(error: BaseException) -> str:
    """Return the message of an error on one line; the first problem if there are several.

    Args:
        error: Any exception; for a :class:`pydantic.ValidationError` field and rule are named.
    """
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        rule = first["msg"].removeprefix("Value error, ")
        return f"{place}: {rule}" if place else rule
    return " ".join(str(error).split()) or type(error).__name__
