# SPDX-License-Identifier: Apache-2.0
"""``vitron specialists``: lists what can run calls."""

from __future__ import annotations

from common_kernels.runtime.cli import Report, emit, say, show, warn


def specialists(*, report: Report = Report()) -> None:
    """List the installed specialists, the modules they serve, and those that can be set up.

    **Examples**

        vitron specialists
        VITRON_SAM_MODEL=facebook/sam2-hiera-small vitron specialists --json
    """
    from rich.table import Table

    from vitron.specialists.registry import SpecialistRegistry

    registry = SpecialistRegistry().discover()
    problems, absent = registry.problems, registry.absent
    specs = [registry.spec(name) for name in registry.names if name not in problems | absent]
    for problem in problems.values():
        warn(problem)
    if report.json:
        for spec in specs:
            emit(spec.model_dump(mode="json"))
        return
    table = Table("specialist", "summary", "modules", "memory (MB)", "licence")
    for spec in specs:
        memory = f"{spec.memory_bytes / 1e6:.0f}"
        table.add_row(spec.name, spec.summary, "\n".join(spec.tasks), memory, spec.licence)
    if specs:
        show(table)
    else:
        say("no specialist can be used yet; what can be set up:")
    for sentence in absent.values():
        say(sentence)
