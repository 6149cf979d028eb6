# SPDX-License-Identifier: Apache-2.0
"""A conversation with somebody at a terminal, or with a program behind a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from common_kernels.runtime.cli import emit, say, stdout, warn
from common_kernels.runtime.files import write_json
from pydantic import BaseModel, ConfigDict

from vitron.cli.results import read_input, report_result, write_result
from vitron.errors import explain
from vitron.protocol.contract import Region
from vitron.protocol.media import Artefact, VideoFormat
from vitron.protocol.regions import parse_region
from vitron.protocol.sampling import SamplingParams
from vitron.session import (
    CallEvent,
    Conversation,
    DoneEvent,
    Event,
    IssueEvent,
    ResultEvent,
    RetryEvent,
    TextEvent,
)

HELP = """\
/image PATH    an image for the next message
/video PATH    a video (MP4, MOV, WebM, MKV, GIF, ...) for the next message
/region WHERE  a region on the latest image: [left, top, right, bottom] from 0 to 999, points [x, y],
               polygon [x, y] [x, y] [x, y], mask_1 or region_1; on a video followed by @ and a frame
/media         all media by handle
/save          write the conversation as conversation.json beside the results
/new           start a new conversation
/quit          leave; Ctrl-D does the same, Ctrl-C only stops a message"""

_CURABLE = (ValueError, OSError, RuntimeError)
# generated text must not send control sequences to the terminal
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def _fresh(folder: Path) -> Path:
    """Return an empty or new folder, so that no earlier conversation is overwritten."""
    found, number = folder, 1
    while found.is_file() or (found.is_dir() and any(found.iterdir())):
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found


class _Exchange:
    """State shared by the terminal and the pipe.

    Args:
        conversation: Conversation to hold.
        sampling: Sampling options.
        folder: Folder of the results; created with the first.
        media: Media of the first message.
        video_format: Format of videos among the results.
    """

    def __init__(
        self,
        conversation: Conversation,
        sampling: SamplingParams,
        folder: Path,
        media: Sequence[Artefact],
        video_format: VideoFormat = "mp4",
    ) -> None:
        self.conversation = conversation
        self.sampling = sampling
        self.folder = _fresh(folder)
        self.media = list(media)
        self.regions = list[Region]()
        self.video_format: VideoFormat = video_format

    def send(
        self, text: str, media: Sequence[Artefact] = (), regions: Sequence[Region] = ()
    ) -> tuple[Conversation, Iterator[Event]]:
        """Add a user message to a fork, which replaces the conversation when the answer is complete."""
        fork, pending = self.conversation.fork(), self.regions
        self.regions = []
        fork.add_user_message(text, media=[*self.media, *media], regions=[*pending, *regions])
        return fork, fork.generate(self.sampling)

    def keep(self, fork: Conversation) -> None:
        """Continue with a fork."""
        self.conversation, self.media = fork, []


class Terminal(_Exchange):
    """A conversation with somebody at a terminal."""

    def run(self, model: str) -> None:
        """Read lines until the end."""
        say(f"{model} is ready. /help lists the commands, Ctrl-D leaves.")
        while True:
            try:
                line = stdout.input("[bold]you[/bold] ").strip()
                if not sys.stdin.isatty():  # nothing has echoed it
                    say(line.translate(_CONTROLS))
            except EOFError:
                say("")
                return
            except KeyboardInterrupt:
                say("\nCtrl-D leaves")
                continue
            if line in ("/quit", "/exit"):
                return
            try:
                if line.startswith("/"):
                    self.command(*line.split(maxsplit=1))
                elif line:
                    self.answer(line)
            except _CURABLE as error:
                warn(explain(error))

    def command(self, name: str, rest: str = "") -> None:
        """Run a command that starts with a slash.

        Raises:
            ValueError: If there is no such command.
        """
        match name:
            case "/help":
                say(HELP)
            case "/image" | "/video":
                self.media.append(read_input(Path(rest.strip("'\"")).expanduser()))
                say(f"{rest} goes with the next message")
            case "/region":
                region, _ = parse_region(rest)
                if region is None:
                    raise ValueError("a region is needed, as /region [100, 100, 500, 500]")
                self.regions.append(region)
                say(f"{region.kind} goes with the next message")
            case "/media":
                for handle, each in self.conversation.media.items():
                    say(f"{handle}: {each.kind}, {each.num_frames} x {each.size[1]} x {each.size[0]}")
            case "/save":
                say(str(self.save()))
            case "/new":
                old = self.conversation
                self.keep(Conversation(old.model, specialists=old.specialists, modules=old.modules))
                self.regions, self.folder = [], _fresh(self.folder)
            case _:
                raise ValueError(f"there is no command {name[:40]}: /help lists them")

    def answer(self, text: str) -> None:
        """Send a message and stream the answer; Ctrl-C stops it and discards both."""
        fork, events = self.send(text)
        try:
            stdout.print("[bold cyan]vitron[/bold cyan] ", end="")
            is_open = True
            for event in events:
                if is_open and isinstance(event, CallEvent | IssueEvent | ResultEvent | DoneEvent):
                    stdout.print()
                    is_open = False
                match event:
                    case TextEvent():
                        shown = event.text.translate(_CONTROLS)
                        if not is_open and not shown.strip():
                            continue
                        is_open = True
                        stdout.print(shown, end="", markup=False, highlight=False, soft_wrap=True)
                    case CallEvent():
                        actions = "; ".join(
                            f"{each.verb} {each.text}" for each in event.invocation.instruction
                        )
                        say(f"  > {event.invocation.module}: {actions}".translate(_CONTROLS))
                    case IssueEvent():
                        warn(event.issue.message)
                    case RetryEvent():
                        say("  the model is asked again; the text above does not count")
                    case ResultEvent():
                        report_result(write_result(fork, event.result, self.folder, self.video_format))
                    case DoneEvent(finish="length"):
                        most = self.sampling.max_new_tokens
                        warn(f"the message was cut off after {most} tokens: --max-new-tokens")
                    case _:
                        pass
            self.keep(fork)
        except KeyboardInterrupt:
            cast("Any", events).close()
            say("\nstopped; the message and its answer are discarded")

    def save(self) -> Path:
        """Write the conversation as ``conversation.json``; return the file."""
        file = self.folder / "conversation.json"
        media = {
            handle: {"kind": each.kind, "size": list(each.size), "frames": each.num_frames}
            for handle, each in self.conversation.media.items()
        }
        messages = [message.model_dump(mode="json") for message in self.conversation.messages]
        write_json(file, {"messages": messages, "media": media})
        return file


class _Line(BaseModel):
    """A user message in a pipe."""

    model_config = ConfigDict(extra="forbid")
    text: str = ""
    images: list[Path] = []
    videos: list[Path] = []
    regions: list[Region] = []


class Pipe(_Exchange):
    """A conversation with a program: a message per line in, a JSON object per line out."""

    def run(self, lines: Iterable[str]) -> int:
        """Answer each line; a line that cannot be answered gets its error. Return 1 if there was one."""
        code = 0
        for line in lines:
            if not line.strip():
                continue
            try:
                answer = self.answer(line)
            except _CURABLE as error:
                answer, code = {"error": explain(error)}, 1
            emit(answer)
        return code

    def answer(self, line: str) -> dict[str, Any]:
        """Return the answer to a line."""
        message = (
            _Line.model_validate_json(line.strip())
            if line.lstrip().startswith("{")
            else _Line(text=line.strip())
        )
        media = [read_input(path) for path in (*message.images, *message.videos)]
        fork, events = self.send(message.text, media, message.regions)
        results, done = list[dict[str, Any]](), cast("DoneEvent | None", None)
        for event in events:
            if isinstance(event, ResultEvent):
                results.append(write_result(fork, event.result, self.folder, self.video_format))
            elif isinstance(event, DoneEvent):
                done = event
        assert done is not None, "a message ends with its last event"
        self.keep(fork)
        return {
            "text": done.turn.text,
            "calls": [
                call.model_dump(mode="json", exclude_none=True, exclude={"source"})
                for call in done.turn.invocations
            ],
            "issues": [issue.message for issue in done.issues],
            "results": results,
            "tokens": done.completion_tokens,
            "finish": done.finish,
        }
