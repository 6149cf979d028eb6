# SPDX-License-Identifier: Apache-2.0
"""Results of calls: written to files, and described as JSON and as lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from common_kernels.runtime.cli import say, warn

from vitron.errors import explain
from vitron.protocol.media import Artefact, overlay, read_media, write_media

if TYPE_CHECKING:
    from vitron.protocol.media import VideoFormat
    from vitron.session import CallResult, Conversation


def read_input(path: Path) -> Artefact:
    """Read an image or a video, and say so if only a part of it is used.

    Raises:
        MediaError: If it cannot be read.
    """
    found = read_media(path)
    if found.note:
        warn(f"{path}: {found.note} are used")
    return found


def write_result(
    conversation: Conversation, result: CallResult, folder: Path, video_format: VideoFormat = "mp4"
) -> dict[str, Any]:
    """Write the result of one call, and return its JSON entry."""
    call, made = result.call, result.artefact
    entry: dict[str, Any] = {"module": call.invocation.module, "input": call.input, "handle": call.output}
    for failure in result.failures:
        warn(f"{failure}; {result.specialist} was asked instead")
    if made is None:
        error = explain(result.error or RuntimeError("there is no result"))
        return entry | {"outputs": {}, "status": "failed", "error": error}
    outputs = {made.kind: write_media(made, folder, call.output, video_format=video_format)}
    if made.kind == "masks" and call.input is not None:
        drawn = overlay(made, conversation.media[call.input])
        outputs["overlay"] = write_media(drawn, folder, f"{call.output}-overlay", video_format=video_format)
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
