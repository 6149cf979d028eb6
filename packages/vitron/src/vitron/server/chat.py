# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions`` and the conversations behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from itertools import islice
from typing import Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from vitron.protocol.sampling import SamplingParams
from vitron.server.errors import ApiError, error_response
from vitron.server.parsing import newest
from vitron.server.queue import Watch
from vitron.server.responses import (
    CompletionFrame,
    finish_reason,
    issue_event,
    result_event,
    sampled_event,
    tool_call,
)
from vitron.server.schemas import ChatMessage, ChatRequest
from vitron.server.state import ServerState, state_of
from vitron.server.store import new_key
from vitron.server.streaming import EventStream, until_gone
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

router = APIRouter()
HEADER = "x-vitron-conversation"

# text, a function call, an event of this server, or the end
StreamItem = str | tuple[Literal["call", "event"], dict[str, Any]] | DoneEvent


class _Completion:
    """One request: a fork of a conversation, and the message that is generated in it."""

    def __init__(self, state: ServerState, body: ChatRequest, key: str, conversation: Conversation) -> None:
        self.state = state
        self.body = body
        self.key = key
        self.conversation = conversation
        self.watch = Watch()
        self.calls = list[dict[str, Any]]()
        self._sampled = list[dict[str, Any]]()
        self._call_ids = list[str]()

    async def add_messages(self, messages: list[ChatMessage]) -> CompletionFrame:
        """Add the messages of the request."""
        known = len(self.conversation.media)
        await to_thread.run_sync(self.state.parser().add_messages, self.conversation, messages)
        added = islice(self.conversation.media.items(), known, None)
        self._sampled = [sampled_event(handle, each) for handle, each in added if each.note]
        return CompletionFrame(self.state.model, self.key)

    @property
    def sampling(self) -> SamplingParams:
        """The sampling options of the request."""
        body, most = self.body, self.state.limits.max_new_tokens
        asked = body.max_completion_tokens or body.max_tokens or most
        if asked > most:
            raise ApiError(400, f"a message has at most {most} tokens, got {asked}", "too_long", "max_tokens")
        return SamplingParams(
            max_new_tokens=asked,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed or 0,
        )

    async def begin(self, sampling: SamplingParams) -> Iterator[Event]:
        """Check that the messages fit the context, and return the events that :meth:`stream` takes."""
        return await to_thread.run_sync(partial(self.conversation.generate, sampling, check=self.watch.check))

    async def stream(self, generated: Iterator[Event]) -> AsyncGenerator[StreamItem]:
        """Generate the message, yield its events, and keep the conversation at the end."""
        for each in self._sampled:
            yield "event", each
        async with aclosing(self.state.queue.stream(generated, self.watch)) as events:
            async for event in events:
                match event:
                    case TextEvent():
                        yield event.text
                    case CallEvent():
                        call = tool_call(event.invocation, self.conversation.modules)
                        self._call_ids.append(call["id"] if call else "")
                        if call:
                            self.calls.append(call)
                            yield "call", call
                    case IssueEvent():
                        yield "event", issue_event(event.issue)
                    case RetryEvent():
                        yield "event", {"type": "retry"}
                    case ResultEvent():
                        yield "event", await self._result(event)
                    case DoneEvent():
                        self.state.conversations.save(self.key, self.conversation)
                        yield event
                    case _:
                        pass

    async def _result(self, event: ResultEvent) -> dict[str, Any]:
        call = event.result.call
        call_id = self._call_ids[call.index] if call.index < len(self._call_ids) else ""
        source = None if call.input is None else self.conversation.media.get(call.input)
        return await to_thread.run_sync(result_event, event.result, call_id, source)


@router.post("/v1/chat/completions", response_model=None)
async def chat(body: ChatRequest, request: Request) -> Response:
    """Generate an assistant message."""
    state = state_of(request)
    state.check_model(body.model)
    _check_tools(body, state)
    async with AsyncExitStack() as stack:
        stack.enter_context(state.queue.admit())
        completion, messages = _open(state, body, request.headers.get(HEADER), stack)
        sampling = completion.sampling
        frame = await completion.add_messages(messages)
        # what can be refused is refused here: the status of a stream is sent before its first token
        events = await completion.begin(sampling)
        headers = {HEADER: completion.key}
        if body.stream:
            chunks = _chunks(completion, frame, events)
            return EventStream(chunks, stack.pop_all(), headers, completion.watch.gone)
        whole = await until_gone(request, _whole(completion, frame, events), completion.watch.gone)
        return JSONResponse(whole, headers=headers)


def _check_tools(body: ChatRequest, state: ServerState) -> None:
    for tool in body.tools or []:
        function = tool.get("function")
        name = str(function.get("name", "")) if isinstance(function, dict) else ""
        if name not in state.modules:
            known = ", ".join(module.name for module in state.modules)
            message = f"there is no tool {name[:64]!r}: the server has {known}, and runs them itself"
            raise ApiError(400, message, "unknown_tool", "tools")


def _open(
    state: ServerState, body: ChatRequest, header: str | None, stack: AsyncExitStack
) -> tuple[_Completion, list[ChatMessage]]:
    """Return the named conversation, or a new one, and the messages that are new in it."""
    key = (body.vitron.conversation if body.vitron is not None else None) or header
    if key is None:
        return _Completion(state, body, new_key("conv-"), state.conversation()), body.messages
    messages = newest(body.messages)
    if not messages or body.messages[-1].role != "user":
        raise ApiError(400, "the last message must be the user's", "bad_messages", "messages")
    conversation = state.conversations.checkout(key)
    stack.callback(state.conversations.release, key)
    return _Completion(state, body, key, conversation), messages


async def _whole(
    completion: _Completion, frame: CompletionFrame, generated: Iterator[Event]
) -> dict[str, Any]:
    text, events = list[str](), list[dict[str, Any]]()
    async with aclosing(completion.stream(generated)) as items:
        async for item in items:
            if isinstance(item, str):
                text.append(item)
            elif isinstance(item, DoneEvent):
                return frame.whole("".join(text), completion.calls, events, item)
            elif item[0] == "event":
                events.append(item[1])
                if item[1]["type"] == "retry":
                    text.clear()
    raise RuntimeError("a message ended without its last event")


async def _chunks(
    completion: _Completion, frame: CompletionFrame, generated: Iterator[Event]
) -> AsyncGenerator[bytes]:
    def event(content: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"

    options = completion.body.stream_options
    try:
        first = {"role": "assistant", "content": ""}
        yield event(frame.chunk(first, vitron={"conversation": completion.key}))
        async with aclosing(completion.stream(generated)) as items:
            async for item in items:
                if isinstance(item, str):
                    yield event(frame.chunk({"content": item}))
                elif isinstance(item, DoneEvent):
                    yield event(frame.chunk({}, finish_reason(item, completion.calls)))
                    if options is not None and options.include_usage:
                        yield event(frame.usage_chunk(item))
                elif item[0] == "call":
                    for delta in _deltas(item[1], len(completion.calls) - 1):
                        yield event(frame.chunk({"tool_calls": [delta]}))
                else:
                    yield event(frame.chunk({}, vitron={"event": item[1]}))
    except Exception as error:  # the status is sent already: the error is an event
        yield event(error_response(error)[1])
        return
    yield b"data: [DONE]\n\n"


def _deltas(call: dict[str, Any], index: int) -> list[dict[str, Any]]:
    """Return a function call as OpenAI streams it: first its name, then its arguments."""
    function = call["function"]
    return [
        {"index": index, **call, "function": {"name": function["name"], "arguments": ""}},
        {"index": index, "function": {"arguments": function["arguments"]}},
    ]


@router.delete("/v1/conversations/{key}")
async def delete(key: str, request: Request) -> dict[str, Any]:
    """Delete a conversation."""
    if not state_of(request).conversations.delete(key):
        raise ApiError(404, "there is no such conversation", "conversation_not_found")
    return {"id": key, "object": "conversation", "deleted": True}
