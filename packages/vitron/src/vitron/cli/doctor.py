# SPDX-License-Identifier: Apache-2.0
"""``vitron doctor``: checks the installation."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated

from common_kernels.runtime.cli import Report, emit, say, warn
from cyclopts import Parameter


def doctor(*, run: Annotated[bool, Parameter(negative="")] = False, report: Report = Report()) -> int:
    """Check the installation: versions, models, specialists that cannot be used, modules without one.

    Exit code 1 if a specialist cannot be used.

    **Examples**

        vitron doctor
        vitron doctor --run

    Args:
        run: Also load each specialist and run easy calls.
    """
    from vitron.protocol import MODULES
    from vitron.shipped import SHIPPED
    from vitron.specialists import SpecialistRegistry, check_specialist

    registry = SpecialistRegistry().discover()
    problems, absent = list(registry.problems.values()), registry.absent
    usable = [name for name in registry.names if name not in registry.problems | absent]
    served = {module.name: list(registry.for_module(module.name)) for module in MODULES}
    if run:
        for name in usable:
            problems += [f"{name}: {fault}" for fault in check_specialist(registry.create(name))]
    versions = {name: version(name) for name in ("vitron", "numpy", "pillow", "pydantic")}
    versions["python"] = platform.python_version()
    if report.json:
        emit({"versions": versions, "served": served, "absent": absent, "problems": problems})
    else:
        say(", ".join(f"{name} {number}" for name, number in versions.items()))
        for name, names in served.items():
            say(f"{name}: {', '.join(names) or 'no specialist'}")
        say(f"models: {', '.join(SHIPPED.names())}")
        for sentence in absent.values():
            say(sentence)
        for sentence in problems:
            warn(sentence)
        if not problems:
            say(f"{len(usable)} specialists, no problems")
    return int(bool(problems))
