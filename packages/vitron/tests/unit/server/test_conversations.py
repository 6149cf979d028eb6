# SPDX-License-Identifier: Apache-2.0
"""Handles, second attempts and long conversations through the server."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from vitron.demo.painters import toy_registry
from vitron.protocol.contract import BoxRegion
from vitron.protocol.media import decode_media
from vitron.protocol.messages import MessageChunk
from vitron.protocol.regions import rasterise
from vitron.server import Limits, create_app

CHAT = "/v1/chat/completions"
BROKEN = "Here it is. <module>A</module><instruction>draw: a star"
WHOLE = "There it is. <module>A</module><instruction>draw: a red star</instruction>"


def call(letter, instruction, region):
    return f"raw <module>{letter}</module><instruction>{instruction}</instruction><region>{region}</region>"


def ask(client, *content, conversation=None, **more):
    parts = [{"type": "text", "text": each} if isinstance(each, str) else each for each in content]
    body = {"model": "vitron", "messages": [{"role": "user", "content": parts}], **more}
    if conversation is not None:
        body["vitron"] = {"conversation": conversation}
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def pixels(event):
    return decode_media(base64.b64decode(event["url"].split(",")[1])).data


def test_32_conversations_keep_their_own_handles(scripted, image_url):
    limits = Limits(generations=4, requests=64)
    white = np.full((32, 64, 3), 255)

    def converse(number):
        box = BoxRegion(x0=number / 64, y0=0.25, x1=(number + 16) / 64, y1=0.75)
        media = [{"type": "image_url", "image_url": {"url": image_url(white)}}] * (1 + number % 2)
        region = {"type": "region", "region": box.model_dump(mode="json", exclude_none=True)}
        first = ask(client, *media, region, "hello").json()
        key = first["vitron"]["conversation"]
        answers = [
            ask(client, said, conversation=key).json()["vitron"]["events"]
            for said in (
                call("C", "add: a red square", "region_1"),
                call("B", "segment: this", "region_1"),
                call("C", "recolour: it to blue", "mask_1"),
            )
        ]
        return box, [event for (event,) in answers]

    app = create_app(scripted(pause=0.0005), specialists=toy_registry(), limits=limits)
    with TestClient(app) as client, ThreadPoolExecutor(32) as pool:
        found = list(pool.map(converse, range(32)))
    for number, (box, (drawn, mask, blue)) in enumerate(found):
        count = 1 + number % 2
        names = [(event["input"], event["name"]) for event in (drawn, mask, blue)]
        assert names == [
            (f"img_{count}", f"img_{count + 1}"),
            (f"img_{count + 1}", "mask_1"),
            (f"img_{count + 1}", f"img_{count + 2}"),
        ]
        own = rasterise(box, 32, 64)
        assert np.array_equal((pixels(drawn) != 255).any(axis=-1), own)
        assert mask["instances"][0]["frames"][0]["box"] == pytest.approx(box.corners)
        changed = (pixels(blue) != pixels(drawn)).any(axis=-1)
        assert np.array_equal(changed, own)


class Stutter:
    """A model whose first attempt at each message is malformed."""

    context_length = None

    def __init__(self):
        self.attempts = 0

    def count_tokens(self, messages, media):
        return 7 * len(messages)

    def stream(self, messages, media, regions, sampling):
        self.attempts += 1
        yield MessageChunk(WHOLE if sampling.constrained and sampling.seed else BROKEN)


def test_a_malformed_call_is_asked_for_again():
    model = Stutter()
    client = TestClient(create_app(model, specialists=toy_registry()))
    whole = ask(client, "draw a star").json()
    (choice,) = whole["choices"]
    # the text of the first attempt is not part of the message
    assert choice["message"]["content"].strip() == "There it is."
    assert len(choice["message"]["tool_calls"]) == 1
    assert [event["type"] for event in whole["vitron"]["events"]] == ["issue", "retry", "artefact"]
    assert whole["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert model.attempts == 2

    lines = ask(client, "draw a star", stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    told = [
        chunk["vitron"]["event"]["type"]
        if "event" in chunk.get("vitron", {})
        else "text"
        if chunk["choices"][0]["delta"].get("content")
        else "call"
        if "tool_calls" in chunk["choices"][0]["delta"]
        else ""
        for chunk in chunks
    ]
    # a call reaches a client once it is certain
    assert [kind for kind in told if kind] == ["text", "issue", "retry", "text", "call", "call", "artefact"]


def test_a_long_conversation_is_shortened_and_a_long_message_refused(scripted):
    generator = scripted(context_length=40)
    client = TestClient(create_app(generator, specialists=toy_registry()))
    first = ask(client, "a " * 20, max_tokens=5).json()
    key = first["vitron"]["conversation"]
    assert first["vitron"]["events"] == []
    second = ask(client, "b " * 20, conversation=key, max_tokens=5).json()
    (event,) = second["vitron"]["events"]
    assert (event["type"], event["code"]) == ("issue", "shortened")
    assert "the oldest 1 turn is left out" in event["message"]
    assert second["usage"]["prompt_tokens"] == 20
    assert len(generator.seen[-1][0]) == 1
    body = {"model": "vitron", "messages": [{"role": "user", "content": "c " * 50}]}
    for is_stream in (False, True):
        asked = body | {"vitron": {"conversation": key}, "stream": is_stream}
        refused = client.post(CHAT, json=asked)
        # not a stream of one error: its status would be 200
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/json")
        error = refused.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert error["message"].startswith("the message has 50 tokens, and the context")
    # the conversation is as it was
    assert ask(client, "everything", conversation=key, max_tokens=1).json()["vitron"]["conversation"] == key
    assert len(generator.seen) == 3


def test_a_message_that_is_too_long_waits_for_nobody(scripted, serve):
    """It is refused while another message holds the only slot."""
    slow = scripted(pause=0.02, context_length=4000)
    with (
        serve(create_app(slow, specialists=toy_registry())) as url,
        httpx.Client(base_url=url) as client,
    ):
        body = {"model": "vitron", "stream": True}
        first = body | {"messages": [{"role": "user", "content": "x" * 3000}]}
        with client.stream("POST", CHAT, json=first) as response:
            next(response.iter_lines())
            long = [{"role": "user", "content": "c " * 5000}]
            refused = client.post(CHAT, json=body | {"messages": long})
            assert slow.at_once == 1
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
