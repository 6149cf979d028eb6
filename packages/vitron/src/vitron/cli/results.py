# SPDX-License-Identifier: Apache-2.0
"""Results of calls: written to files, and described as JSON and as lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from common_kernels.runtime.cli import say, warn

from vitron.errors import explain
from vitron.protocol.media import overlay, write_media

if TYPE_CHECKING:
    from vitron.session import CallResult, Conversation


def write_result(conversation: Conversation, result: CallResult, folder: Path) -> dict[str, Any]:
    """Write the result of one call, and return its JSON entry."""
    call, made = result.call, result.artefact
    entry: dict[str, Any] = {"module": call.invocation.module, "input": call.input, "handle": call.output}
    for failure in result.failures:
        warn(f"{failure}; {result.specialist} was asked instead")
    if made is None:
        error = explain(result.error or RuntimeError("there is no result"))
        return entry | {"outputs": {}, "status": "failed", "error": error}
    outputs = {made.kind: write_media(made, folder, call.output)}
    if made.kind == "masks" and call.input is not None:
        drawn = overlay(made, conversation.media[call.input])
        outputs["overlay"] = write_media(drawn, folder, f"{call.output}-overlay")
    labels = {"labels": list(made.labels)} if made.labels else {}
    return entry | {
        "outputs": {kind: str(path) for kind, path in outputs.items()},
        "status": "done",
        "specialist": result.specialist,
        **labels,
    }


def report_result(entry: dict[str, Any]) -> None:
    """Print the line of an entry."""
    if entry["status"] == "failed":
        warn(f"{entry['module']}: {entry['error']}")
        return
    source = f" from {entry['input']}" if entry["input"] else ""
    files = " ".join(entry["outputs"].values())
    say(f"{entry['handle']}{source}: {entry['module']} by {entry['specialist']}: {files}")
