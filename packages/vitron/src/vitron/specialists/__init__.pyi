# SPDX-License-Identifier: Apache-2.0
from .options import SpecialistOptions as SpecialistOptions
from .protocol import Action as Action
from .protocol import Request as Request
from .protocol import Result as Result
from .protocol import Specialist as Specialist
from .registry import GROUP as GROUP
from .registry import Outcome as Outcome
from .registry import SpecialistRegistry as SpecialistRegistry
from .testing import check_specialist as check_specialist
from .testing import example_requests as example_requests
