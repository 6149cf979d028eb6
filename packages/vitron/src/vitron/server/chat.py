# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions`` and the conversations behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from vitron.protocol.messages import SamplingParams
from vitron.server.errors import ApiError, body_of_error
from vitron.server.intake import newest
from vitron.server.output import Completion, finish_reason, issue_of, result_of, tool_call
from vitron.server.state import ServerState, state_of
from vitron.server.store import new_key
from vitron.server.wire import ChatMessage, ChatRequest
from vitron.server.work import EventStream, until_gone
from vitron.session.chat import CallEvent, DoneEvent, IssueEvent, ResultEvent, Session, TextEvent

router = APIRouter()
HEADER = "x-vitron-conversation"

# text, a function call, one of our events, or the end
Told = str | tuple[str, dict[str, Any]] | DoneEvent


class _Talk:
    """One request to chat: a fork of a conversation, and the reply that is written in it."""

    def __init__(self, state: ServerState, body: ChatRequest, key: str, session: Session) -> None:
        self.state = state
        self.body = body
        self.key = key
        self.session = session
        self.calls = list[dict[str, Any]]()
        self._call_ids = list[str]()

    async def hear(self, messages: list[ChatMessage]) -> Completion:
        """Take in what was said."""
        intake = self.state.intake()
        await to_thread.run_sync(intake.replay, self.session, messages)
        return Completion(self.state.model, self.key, self.state.count_tokens(self.session))

    @property
    def sampling(self) -> SamplingParams:
        """How the reply is to be drawn."""
        body, most = self.body, self.state.limits.max_new_tokens
        asked = body.max_completion_tokens or body.max_tokens or most
        if asked > most:
            raise ApiError(400, f"a reply has at most {most} tokens, got {asked}", "too_long", "max_tokens")
        return SamplingParams(
            max_new_tokens=asked,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed or 0,
        )

    async def reply(self, sampling: SamplingParams) -> AsyncGenerator[Told]:
        """Write the reply, tell what happens, and keep the conversation at its end."""
        modules = self.session.conversation.modules
        written = self.state.line.write(self.session, self.state.replier, sampling)
        async with aclosing(written) as events:
            async for event in events:
                match event:
                    case TextEvent():
                        yield event.text
                    case CallEvent():
                        call = tool_call(event.invocation, modules)
                        self._call_ids.append(call["id"] if call else "")
                        if call:
                            self.calls.append(call)
                            yield "call", call
                    case IssueEvent():
                        yield "event", issue_of(event.issue)
                    case ResultEvent():
                        yield "event", await self._result(event)
                    case DoneEvent():
                        self.state.conversations.keep(self.key, self.session)
                        yield event

    async def _result(self, event: ResultEvent) -> dict[str, Any]:
        step = event.result.step
        call_id = self._call_ids[step.index] if step.index < len(self._call_ids) else ""
        under = None if step.input is None else self.session.media.get(step.input)
        return await to_thread.run_sync(result_of, event, call_id, under)


@router.post("/v1/chat/completions", response_model=None)
async def chat(body: ChatRequest, request: Request) -> Response:
    """Write a reply."""
    state = state_of(request)
    state.check_model(body.model)
    _check_tools(body, state)
    async with AsyncExitStack() as stack:
        stack.enter_context(state.line.inside())
        talk, messages = _open(state, body, request.headers.get(HEADER), stack)
        sampling = talk.sampling
        frame = await talk.hear(messages)
        headers = {HEADER: talk.key}
        if body.stream:
            return EventStream(_chunks(talk, frame, sampling), stack.pop_all(), headers)
        return JSONResponse(await until_gone(request, _whole(talk, frame, sampling)), headers=headers)


def _check_tools(body: ChatRequest, state: ServerState) -> None:
    for tool in body.tools or []:
        function = tool.get("function")
        name = str(function.get("name", "")) if isinstance(function, dict) else ""
        if name not in state.modules:
            known = ", ".join(module.name for module in state.modules)
            message = f"there is no tool {name[:64]!r}: the server has {known}, and carries them out itself"
            raise ApiError(400, message, "unknown_tool", "tools")


def _open(
    state: ServerState, body: ChatRequest, header: str | None, stack: AsyncExitStack
) -> tuple[_Talk, list[ChatMessage]]:
    """Return the conversation that is meant, or a new one, and what is new in it."""
    key = (body.vitron.conversation if body.vitron is not None else None) or header
    if key is None:
        session = Session(state.replier, specialists=state.specialists, modules=state.modules)
        return _Talk(state, body, new_key("conv-"), session), body.messages
    messages = newest(body.messages)
    if not messages or body.messages[-1].role != "user":
        raise ApiError(400, "the last message must be the user's", "bad_messages", "messages")
    session = state.conversations.borrow(key)
    stack.callback(state.conversations.release, key)
    return _Talk(state, body, key, session), messages


async def _whole(talk: _Talk, frame: Completion, sampling: SamplingParams) -> dict[str, Any]:
    text, events = list[str](), list[dict[str, Any]]()
    async with aclosing(talk.reply(sampling)) as told:
        async for each in told:
            if isinstance(each, str):
                text.append(each)
            elif isinstance(each, DoneEvent):
                return frame.whole("".join(text), talk.calls, events, each)
            elif each[0] == "event":
                events.append(each[1])
    raise RuntimeError("a reply ended without its end")


async def _chunks(talk: _Talk, frame: Completion, sampling: SamplingParams) -> AsyncGenerator[bytes]:
    def event(content: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"

    options = talk.body.stream_options
    try:
        first = {"role": "assistant", "content": ""}
        yield event(frame.chunk(first, vitron={"conversation": talk.key}))
        async with aclosing(talk.reply(sampling)) as told:
            async for each in told:
                if isinstance(each, str):
                    yield event(frame.chunk({"content": each}))
                elif isinstance(each, DoneEvent):
                    yield event(frame.chunk({}, finish_reason(each, talk.calls)))
                    if options is not None and options.include_usage:
                        yield event(frame.usage_chunk(each))
                elif each[0] == "call":
                    for delta in _deltas(each[1], len(talk.calls) - 1):
                        yield event(frame.chunk({"tool_calls": [delta]}))
                else:
                    yield event(frame.chunk({}, vitron={"event": each[1]}))
    except Exception as error:  # the status is long sent: what went wrong is an event
        yield event(body_of_error(error)[1])
        return
    yield b"data: [DONE]\n\n"


def _deltas(call: dict[str, Any], index: int) -> list[dict[str, Any]]:
    """A function call as OpenAI streams it: first who is called, then with what."""
    function = call["function"]
    return [
        {"index": index, **call, "function": {"name": function["name"], "arguments": ""}},
        {"index": index, "function": {"arguments": function["arguments"]}},
    ]


@router.delete("/v1/conversations/{key}")
async def forget(key: str, request: Request) -> dict[str, Any]:
    """Forget a conversation."""
    if not state_of(request).conversations.drop(key):
        raise ApiError(404, "there is no such conversation", "conversation_not_found")
    return {"id": key, "object": "conversation", "deleted": True}
