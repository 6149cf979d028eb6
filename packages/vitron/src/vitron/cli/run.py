# SPDX-License-Identifier: Apache-2.0
"""``vitron run``: runs the calls of a given assistant message."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from common_kernels.runtime.cli import Device, Output, emit, say, warn
from common_kernels.runtime.files import write_json
from common_kernels.runtime.fingerprint import digest_file, digest_settings
from cyclopts import Parameter

from vitron.cli.options import OUTPUT, Specialists, VideoFormat, read_text
from vitron.specialists.options import SpecialistOptions

if TYPE_CHECKING:
    from vitron.session.calls import CallResult, PlannedCall
    from vitron.session.conversation import Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutput(Output):
    """Folder of the results, and how they are reported.

    Attributes:
        output: Folder of the results.
    """

    output: Annotated[Path, Parameter(alias="-o", group=OUTPUT)] = Path("vitron-out")


def run(
    inputs: list[Path] | None = None,
    /,
    *,
    reply: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    seed: int = 0,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    video_format: VideoFormat = "mp4",
    specialists: Specialists = SpecialistOptions(),
    device: Device = Device(),
    output: RunOutput = RunOutput(),
) -> int:
    """Run the calls of an assistant message and write their results.

    No language model takes part: the message is given. Images have the handles img_1, img_2, ..., videos
    vid_1. Results of the same message, files and settings are not computed again.

    **Examples**

        vitron run photo.png --reply "<module>B</module><instruction>segment: the dog</instruction>"
        vitron run --reply "<module>A</module><instruction>draw: a blue star</instruction>" -o drawn/

    Args:
        inputs: Images or videos (MP4, MOV, WebM, MKV, GIF, ...), in the order of their handles.
        reply: Assistant message with calls in tags; - reads it from stdin.
        seed: Random seed.
        dry_run: Show which specialist would run each call, and run none.
        video_format: Format of videos among the results.
    """
    from common_kernels.runtime.hub import resolve_device

    from vitron.cli.results import read_input
    from vitron.protocol.parser import parse
    from vitron.session.conversation import Conversation
    from vitron.specialists.registry import SpecialistRegistry

    paths = inputs or []
    registry = SpecialistRegistry(device=str(resolve_device(device.device)), dtype=device.dtype).discover()
    conversation = Conversation(specialists=specialists.apply(registry))
    names = {conversation.add_media(read_input(path)): str(path) for path in paths}
    turn = parse(read_text(reply))
    calls = conversation.plan(turn)
    told = {call.problem for call in calls}  # with the result of the call
    for issue in turn.issues:
        if issue.message not in told:
            warn(issue.message)
    if not calls:
        raise ValueError("the message has no call that can run")
    if dry_run:
        return _report([_planned(call) for call in calls], json=output.json)
    asked = {name: registry.spec(name).model_dump() for call in calls for name in call.specialists[:1]}
    settings = [turn.model_dump(), seed, device.dtype, asked, video_format]
    digest = digest_settings([*map(digest_file, paths), settings])
    record = _Record(output.output, digest, calls, overwrite=output.overwrite)
    if record.results:
        return _report([entry | {"status": "skipped"} for entry in record.results], json=output.json)
    record.begin()
    results = conversation.stream_results(turn, seed=seed)
    entries = _write_results(conversation, results, names, output.output, video_format)
    record.complete(entries)
    return _report(entries, json=output.json, text=turn.text.strip())


def _write_results(
    conversation: Conversation,
    results: Iterable[CallResult],
    names: dict[str, str],
    folder: Path,
    video_format: VideoFormat,
) -> list[dict[str, Any]]:
    """Write each result as soon as it is ready; return their entries, which name files instead of handles."""
    from vitron.cli.results import write_result

    entries, began = list[dict[str, Any]](), time.perf_counter()
    for result in results:
        entry = write_result(conversation, result, folder, video_format)
        entry["input"] = names.get(str(entry["input"]))
        names |= {str(entry["handle"]): file for file in [*entry["outputs"].values()][:1]}
        entries.append(entry | {"seconds": round(time.perf_counter() - began, 3)})
        began = time.perf_counter()
    return entries


class _Record:
    """The record beside the results: their inputs, settings and files.

    Args:
        folder: Folder of the results.
        digest: Digest of inputs and settings.
        calls: Calls to run.
        overwrite: Whether to discard earlier results.

    Raises:
        FileExistsError: If a file that no earlier run wrote would be replaced.
    """

    def __init__(self, folder: Path, digest: str, calls: Sequence[PlannedCall], *, overwrite: bool) -> None:
        self.file = folder / ".results" / "run.json"
        self.digest = digest
        self.results = list[dict[str, Any]]()
        handles = [call.output for call in calls]
        earlier = self._read()
        known = set(earlier.get("handles", ()))
        there = {handle: sorted(folder.glob(f"{handle}[.-]*")) for handle in handles}
        foreign = next((files[0] for handle, files in there.items() if files and handle not in known), None)
        if foreign is not None and not overwrite:
            raise FileExistsError(
                f"{foreign} exists and is not a result of an earlier run: --overwrite replaces it"
            )
        results = earlier.get("results", [])
        files = [Path(path) for entry in results for path in entry["outputs"].values()]
        if not overwrite and earlier.get("digest") == digest and all(file.is_file() for file in files):
            self.results = results
        if not self.results:
            self.handles = sorted(known | set(handles))

    def _read(self) -> dict[str, Any]:
        try:
            return jsonlib.loads(self.file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}

    def begin(self) -> None:
        """Write the record before the results: files of a killed run are then known."""
        self._write([])

    def complete(self, entries: Sequence[dict[str, Any]]) -> None:
        """Write the record of a run; failed calls are tried again next time."""
        if any(entry["outputs"] for entry in entries):
            failed = any(entry["status"] == "failed" for entry in entries)
            self._write([] if failed else list(entries))
            return
        with suppress(OSError):  # a call without a result leaves no file
            self.file.unlink()
            self.file.parent.rmdir()
            self.file.parent.parent.rmdir()

    def _write(self, results: list[dict[str, Any]]) -> None:
        write_json(self.file, {"digest": self.digest, "handles": self.handles, "results": results})


def _planned(call: PlannedCall) -> dict[str, Any]:
    return {
        "module": call.invocation.module,
        "input": call.input,
        "handle": call.output,
        "after": list(call.after),
        "specialists": list(call.specialists),
        "error": call.problem,
    }


def _report(entries: Sequence[dict[str, Any]], *, json: bool, text: str = "") -> int:
    """Print text and each entry; return the exit code."""
    from vitron.cli.results import report_result

    if text and not json:
        say(text)
    for entry in entries:
        if entry.get("error"):
            warn(f"{entry['module']}: {entry['error']}")
        if json:
            emit(entry)
        elif "status" not in entry and not entry["error"]:
            source = f" from {entry['input']}" if entry["input"] else ""
            say(f"{entry['handle']}{source}: {entry['module']} by {', then '.join(entry['specialists'])}")
        elif not entry.get("error"):
            report_result(entry)
            if entry["status"] == "skipped":
                warn(f"{entry['handle']}: skipped, the result exists (--overwrite discards it)")
    return int(any(entry.get("status") == "failed" for entry in entries))
