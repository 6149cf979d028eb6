# SPDX-License-Identifier: Apache-2.0
"""Those who carry out calls: what one must offer, how they are found, loaded, run and given up."""

from vitron.specialists.protocol import Action, Request, Result, Specialist
from vitron.specialists.registry import GROUP, Outcome, SpecialistRegistry
from vitron.specialists.testing import check_specialist, example_requests

__all__ = [
    "GROUP",
    "Action",
    "Outcome",
    "Request",
    "Result",
    "Specialist",
    "SpecialistRegistry",
    "check_specialist",
    "example_requests",
]
