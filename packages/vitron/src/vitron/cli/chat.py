# SPDX-License-Identifier: Apache-2.0
"""``vitron chat``: a talk in the terminal, or line by line through a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from pydantic import BaseModel, ConfigDict

from vitron.cli.model import Device, Dtype, Memory, Model, Prefer, Timeout, bound, load
from vitron.cli.output import Debug, Out, say, stdout, user_errors, warn
from vitron.cli.run import write_result
from vitron.errors import explain
from vitron.protocol.contract import Region

if TYPE_CHECKING:
    from vitron.protocol.media import Artefact
    from vitron.protocol.messages import SamplingParams
    from vitron.session.chat import DoneEvent, Event, Session

HELP = """\
/image PATH    a picture for the next message
/clip PATH     a clip (GIF, WebP) for the next message
/region WHERE  a place on the latest picture: [left, top, right, bottom] from 0 to 999, points [x, y],
               polygon [x, y] [x, y] [x, y], or the name of a mask; for a clip followed by @ and a frame
/media         what there is, by name
/save          write the talk as talk.json beside the pictures
/new           begin again
/quit          leave; Ctrl-D does the same, Ctrl-C only stops a reply"""

_CURABLE = (ValueError, OSError, RuntimeError)
# what a model writes may not steer the terminal
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def chat(
    media: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Pictures or clips to begin with.")
    ] = None,
    model: Model = "vitron-tiny",
    out: Out = "vitron-chat",
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 takes the likeliest words.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Same talk and seed, same replies.")] = 0,
    json_output: Annotated[
        bool, typer.Option("--json", help="Lines from stdin, one JSON object per reply on stdout.")
    ] = False,
    timeout: Timeout = 120.0,
    memory: Memory = None,
    prefer: Prefer = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    debug: Debug = False,
) -> None:
    """Talk to a model; what it makes is written into a folder.

    With --json each line of stdin is a message: plain words, or an object with text, images and clips (lists
    of paths) and regions (as in the contract).

    [bold]Examples[/bold]

      vitron chat photo.png

      echo "draw a red star" | vitron chat --json
    """
    with user_errors(debug):
        from vitron.protocol.media import read_media
        from vitron.protocol.messages import SamplingParams
        from vitron.session.chat import Session

        brought = [read_media(path) for path in media or []]
        replier, specialists = load(model, device, dtype)
        specialists = bound(specialists, timeout, memory, prefer)
        sampling = SamplingParams(max_new_tokens=max_tokens, temperature=temperature, seed=seed)
        talk = Talk(Session(replier, specialists=specialists), sampling, _fresh(Path(out)))
        talk.pending_media += brought
        if json_output:
            talk.pipe(sys.stdin)
        else:
            talk.run(model)


class _Line(BaseModel):
    """A message in a pipe."""

    model_config = ConfigDict(extra="forbid")
    text: str = ""
    images: list[Path] = []
    clips: list[Path] = []
    regions: list[Region] = []


def _fresh(folder: Path) -> Path:
    """Return a folder that holds nothing yet, so that no earlier talk is overwritten."""
    found, number = folder, 1
    while found.is_file() or (found.is_dir() and any(found.iterdir())):
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found


class Talk:
    """A talk with somebody at a terminal, or with a pipe.

    Args:
        session: Its state.
        sampling: How replies are drawn.
        folder: Where pictures go; made when the first is written.
    """

    def __init__(self, session: Session, sampling: SamplingParams, folder: Path) -> None:
        self.session = session
        self.sampling = sampling
        self.folder = folder
        self.pending_media: list[Artefact] = []
        self.pending_regions: list[Region] = []

    def run(self, model: str) -> None:
        """Read what is typed until the end."""
        say(f"{model} listens. /help tells what can be said, Ctrl-D leaves.")
        while True:
            try:
                line = stdout.input("[bold]you[/bold] ").strip()
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
        """Do what a line with a slash says.

        Raises:
            ValueError: If it says nothing that can be done.
        """
        from vitron.protocol.media import read_media
        from vitron.protocol.regions import parse_region

        match name:
            case "/help":
                say(HELP)
            case "/image" | "/clip":
                self.pending_media.append(read_media(Path(rest.strip("'\"")).expanduser()))
                say(f"{rest} goes with the next message")
            case "/region":
                region, _ = parse_region(rest)
                if region is None:
                    raise ValueError("a region is needed, as /region [100, 100, 500, 500]")
                self.pending_regions.append(region)
                say(f"{region.kind} goes with the next message")
            case "/media":
                for key, each in self.session.media.items():
                    say(f"{key}: {each.kind}, {each.num_frames} x {each.size[1]} x {each.size[0]}")
            case "/save":
                say(str(self.save()))
            case "/new":
                self.session = type(self.session)(
                    self.session.replier, specialists=self.session.conversation.specialists
                )
                self.pending_media, self.pending_regions = [], []
                self.folder = _fresh(self.folder)
            case _:
                raise ValueError(f"there is no {name[:40]}: /help tells what there is")

    def _begin(self, text: str) -> tuple[Session, Iterator[Event]]:
        """Say something in a fork of the talk, which takes its place when the reply is there."""
        fork = self.session.fork()
        media, regions = self.pending_media, self.pending_regions
        self.pending_regions = []
        fork.say(text, media=media, regions=regions)
        return fork, fork.reply(self.sampling)

    def answer(self, text: str) -> None:
        """Say something and show the reply as it comes; Ctrl-C stops it, and nothing is kept then."""
        from vitron.session.chat import CallEvent, IssueEvent, ResultEvent, TextEvent

        fork, events = self._begin(text)
        try:
            stdout.print("[bold cyan]vitron[/bold cyan] ", end="")
            is_open = True
            for event in events:
                if is_open and not isinstance(event, TextEvent):
                    stdout.print()
                    is_open = False
                match event:
                    case TextEvent():
                        words = event.text.translate(_CONTROLS)
                        if not is_open and not words.strip():
                            continue
                        is_open = True
                        stdout.print(words, end="", markup=False, highlight=False, soft_wrap=True)
                    case CallEvent():
                        said = "; ".join(f"{each.verb} {each.text}" for each in event.invocation.instruction)
                        say(f"  > {event.invocation.module}: {said}".translate(_CONTROLS))
                    case IssueEvent():
                        warn(event.issue.message)
                    case ResultEvent():
                        self._show(write_result(fork.conversation, event.result, self.folder))
                    case _:
                        pass
            self._keep(fork)
        except KeyboardInterrupt:
            cast("Any", events).close()
            say("\nstopped; the message and its reply are forgotten")

    def _keep(self, fork: Session) -> None:
        self.session, self.pending_media = fork, []

    def _show(self, told: dict[str, Any]) -> None:
        if "error" in told:
            warn(f"{told['module']}: {told['error']}")
            return
        source = f" from {told['input']}" if told["input"] else ""
        say(f"  = {told['output']}{source} by {told['specialist']}: {' '.join(told['files'])}")

    def save(self) -> Path:
        """Write the talk as ``talk.json``; return where."""
        from vitron.protocol.media import write_bytes

        told = {
            "messages": [message.model_dump(mode="json") for message in self.session.messages],
            "media": {
                name: {"kind": each.kind, "size": list(each.size), "frames": each.num_frames}
                for name, each in self.session.media.items()
            },
        }
        content = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
        return write_bytes(self.folder / "talk.json", content.encode("utf-8"))

    def pipe(self, lines: Iterator[str]) -> None:
        """Answer each line by one JSON object; a line that cannot be answered gets its error."""
        for line in lines:
            if not line.strip():
                continue
            try:
                told = self._piped(line)
            except _CURABLE as error:
                told = {"error": explain(error)}
            typer.echo(json.dumps(told, ensure_ascii=False))
            sys.stdout.flush()

    def _piped(self, line: str) -> dict[str, Any]:
        from vitron.session.chat import DoneEvent, ResultEvent

        fork, events = self._begin(self._read(line))
        results, done = list[dict[str, Any]](), cast("DoneEvent | None", None)
        for event in events:
            if isinstance(event, ResultEvent):
                results.append(write_result(fork.conversation, event.result, self.folder))
            elif isinstance(event, DoneEvent):
                done = event
        if done is None:
            raise RuntimeError("the reply ended without its end")
        self._keep(fork)
        return {
            "text": done.turn.text,
            "calls": [
                call.model_dump(mode="json", exclude_none=True, exclude={"source"})
                for call in done.turn.invocations
            ],
            "issues": [issue.message for issue in done.turn.issues],
            "results": results,
            "tokens": done.completion_tokens,
            "finish": done.finish,
        }

    def _read(self, line: str) -> str:
        """Take media and regions of a line, and return its words.

        Raises:
            ValueError: If it is a broken object.
        """
        from vitron.protocol.media import read_media

        if not line.lstrip().startswith("{"):
            return line.strip()
        told = _Line.model_validate_json(line)
        self.pending_media = [read_media(path) for path in (*told.images, *told.clips)]
        self.pending_regions = list(told.regions)
        return told.text
