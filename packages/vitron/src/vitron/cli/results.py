# SPDX-License-Identifier: Apache-2.0
"""Results of calls: written to files, and described as JSON and as lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from common_kernels.runtime.cli import say, warn

from vitron.errors import explain
from vitron.protocol.contract import BoxRegion
from vitron.protocol.media import Artefact, overlay, read_media, write_media
from vitron.protocol.regions import format_region
from vitron.session.instances import list_instances

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
    entry: dict[str, Any] = {"module": call.invocation.module, "input": call.input}
    for failure in result.failures:
        warn(f"{failure}; {result.specialist} was asked instead")
    if made is None:
        error = explain(result.error or RuntimeError("there is no result"))
        return entry | {"handle": None, "outputs": {}, "status": "failed", "error": error}
    outputs = {made.kind: write_media(made, folder, call.output, video_format=video_format)}
    if made.kind == "masks" and call.input is not None:
        drawn = overlay(made, conversation.media[call.input])
        outputs["overlay"] = write_media(drawn, folder, f"{call.output}-overlay", video_format=video_format)
    instances = {"instances": list_instances(made)} if made.kind == "masks" else {}
    return entry | {
        "handle": call.output,
        "outputs": {kind: str(path) for kind, path in outputs.items()},
        "status": "done",
        "specialist": result.specialist,
        **instances,
    }


def report_result(entry: dict[str, Any]) -> None:
    """Print the line of an entry, and one for each instance with its box as `/region` takes it."""
    if entry["status"] == "failed":
        warn(f"{entry['module']}: {entry['error']}")
        return
    source = f" from {entry['input']}" if entry["input"] else ""
    files = " ".join(entry["outputs"].values())
    say(f"{entry['handle']}{source}: {entry['module']} by {entry['specialist']}: {files}")
    for instance in entry.get("instances", ()):
        seen = [(at, each["box"]) for at, each in enumerate(instance["frames"]) if each["box"]]
        if seen:
            at, (x0, y0, x1, y1) = seen[0]
            frame = at if len(instance["frames"]) > 1 else None
            box = BoxRegion(x0=x0, y0=y0, x1=x1, y1=y1, frame=frame)
            # the label may be generated text: no control sequences
            label = "".join(each for each in instance["label"] if each.isprintable())
            say(f"  {label} {format_region(box)}")
