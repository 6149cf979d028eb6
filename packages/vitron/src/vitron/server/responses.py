# SPDX-License-Identifier: Apache-2.0
"""The bodies of responses, as plain values."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

from vitron.errors import explain
from vitron.protocol import ModuleRegistry, to_tool_calls
from vitron.protocol.contract import Invocation, Issue, Turn
from vitron.protocol.media import Artefact, encode, overlay
from vitron.server.errors import code_of
from vitron.server.store import new_key
from vitron.session import CallResult, DoneEvent
from vitron.session.instances import list_instances

MIMES = {".png": "image/png", ".mp4": "video/mp4"}


def data_url(artefact: Artefact) -> tuple[str, str]:
    """Return an artefact as a ``data:`` URL, and its media type."""
    content, suffix = encode(artefact)
    mime = MIMES[suffix]
    return f"data:{mime};base64,{base64.b64encode(content).decode()}", mime


def result_event(result: CallResult, call_id: str, source: Artefact | None) -> dict[str, Any]:
    """Return the result of a call.

    Args:
        result: The result.
        call_id: Id of the call for the client.
        source: Image or video that the call worked on, for the overlay of masks.
    """
    event: dict[str, Any] = {
        "tool_call_id": call_id,
        "module": result.call.invocation.module,
        "input": result.call.input,
    }
    made = result.artefact
    if made is None:
        error = result.error or RuntimeError("there is no result")
        return {"type": "error", **event, "code": code_of(error), "message": explain(error)}
    url, mime = data_url(made)
    event |= {
        "name": result.call.output,
        "kind": made.kind,
        "mime": mime,
        "size": {"height": made.size[0], "width": made.size[1], "frames": made.num_frames},
        "specialist": result.specialist,
        "note": result.note,
        "failures": list(result.failures),
        "url": url,
    }
    if made.kind == "masks":
        event["instances"] = list_instances(made)
        if source is not None and (source.size, source.num_frames) == (made.size, made.num_frames):
            event["overlay_url"] = data_url(overlay(made, source))[0]
    return {"type": "artefact", **event}


def issue_event(issue: Issue) -> dict[str, Any]:
    """Return an issue of a message."""
    return {"type": "issue", "code": issue.code, "message": issue.message}


def sampled_event(handle: str, artefact: Artefact) -> dict[str, Any]:
    """Return that frames of a video are left out: regions and results count those that are used."""
    return {"type": "issue", "code": "sampled", "message": f"{handle}: {artefact.note} are used"}


def tool_call(call: Invocation, modules: ModuleRegistry) -> dict[str, Any] | None:
    """Return a call as a function call with a key of its own; ``None`` if it cannot be written as one."""
    try:
        (written,) = to_tool_calls(Turn(invocations=(call,)), modules=modules)
    except ValueError:
        return None
    return written | {"id": new_key("call_")}


class CompletionFrame:
    """The frame around one message.

    Args:
        model: Name of the model.
        conversation: Key of the conversation.
    """

    def __init__(self, model: str, conversation: str) -> None:
        self.key = new_key("chatcmpl-")
        self.model = model
        self.conversation = conversation
        self.created = int(time.time())

    def usage(self, done: DoneEvent) -> dict[str, int]:
        """Return the counts."""
        counts = {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens}
        return counts | {"total_tokens": sum(counts.values())}

    def _frame(self, kind: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.key,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
        }

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        """Return one chunk of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._frame("chat.completion.chunk", [choice]) | more

    def usage_chunk(self, done: DoneEvent) -> dict[str, Any]:
        """Return the last chunk, which has no choice."""
        return self._frame("chat.completion.chunk", []) | {"usage": self.usage(done)}

    def whole(
        self, text: str, calls: Sequence[dict[str, Any]], events: Sequence[dict[str, Any]], done: DoneEvent
    ) -> dict[str, Any]:
        """Return a whole message."""
        message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
        if calls:
            message["tool_calls"] = list(calls)
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason(done, calls),
        }
        return self._frame("chat.completion", [choice]) | {
            "usage": self.usage(done),
            "vitron": {"conversation": self.conversation, "events": list(events)},
        }


def finish_reason(done: DoneEvent, calls: Sequence[object]) -> str:
    """Return why a message ended, in OpenAI's terms."""
    return "length" if done.finish == "length" else "tool_calls" if calls else "stop"
