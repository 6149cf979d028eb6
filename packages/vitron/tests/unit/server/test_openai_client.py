# SPDX-License-Identifier: Apache-2.0
"""The official client of OpenAI against a server on a port."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from vitron import SpecialistRegistry
from vitron.demo.painters.find import things_in
from vitron.demo.scripted import CIRCLE, mask_of
from vitron.protocol.rle import decode_mask
from vitron.server import Limits, create_app


def user(*content):
    return {"role": "user", "content": list(content) if len(content) > 1 else content[0]}


def text(words):
    return {"type": "text", "text": words}


def image(content, mime="image/png"):
    url = f"data:{mime};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def conversation(client, *messages, **options):
    return client.chat.completions.create(model="vitron", messages=list(messages), **options)


def test_a_plain_reply(official):
    done = conversation(official, {"role": "system", "content": "be short"}, user("good day to you"))
    (choice,) = done.choices
    assert choice.message.content == "You said 2: good day to you"
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"
    assert done.usage.prompt_tokens == 6
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.model == "vitron"
    assert [model.id for model in official.models.list()] == ["vitron"]
    assert official.models.retrieve("vitron").object == "model"


def test_a_call_is_carried_out(official, scene):
    done = conversation(official, user(image(scene), text("mark the red circle")), seed=3)
    (choice,) = done.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content.strip() == "I mark it."
    (made,) = choice.message.tool_calls
    assert made.function.name == "image_segmentation"
    assert json.loads(made.function.arguments) == {"instruction": ["segment: the red circle"]}
    (event,) = done.vitron["events"]
    assert event["tool_call_id"] == made.id
    assert (event["type"], event["name"], event["kind"], event["input"]) == (
        "artefact",
        "mask_1",
        "masks",
        "img_1",
    )
    (mask,) = event["instances"]
    region = mask["frames"][0]["region"]
    assert mask["label"] == "red circle"
    assert np.array_equal(decode_mask(region["counts"], *region["size"]), mask_of(CIRCLE))
    assert event["url"].startswith("data:image/png;base64,")
    assert pixels(event["overlay_url"].split(",")[1]).shape == (96, 96, 3)


def test_a_stream_has_words_then_calls_then_artefacts(official, scene):
    options = {"include_usage": True}
    chunks = list(
        conversation(official, user(image(scene), text("mark the star")), stream=True, stream_options=options)
    )
    assert len({chunk.id for chunk in chunks}) == 1
    kinds = []
    for chunk in chunks[:-1]:
        delta = chunk.choices[0].delta
        extra = (chunk.model_extra or {}).get("vitron", {})
        kind = (
            "call"
            if delta.tool_calls
            else "event"
            if "event" in extra
            else "text"
            if delta.content
            else "frame"
        )
        kinds.append(kind)
    order = [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]
    assert order == ["frame", "text", "call", "event", "frame"]
    words = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert words.strip() == "I mark it."
    assert kinds.count("text") > 2
    calls = [call for chunk in chunks[:-1] for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function.name == "image_segmentation"
    assert json.loads("".join(call.function.arguments for call in calls)) == {
        "instruction": ["segment: the star"]
    }
    (event,) = [chunk.vitron["event"] for chunk, kind in zip(chunks, kinds, strict=False) if kind == "event"]
    assert (event["name"], event["tool_call_id"]) == ("mask_1", calls[0].id)
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[-1].choices == []


def test_a_conversation_goes_on_by_its_key(official, scene):
    first = conversation(official, user(image(scene), text("mark the red circle")))
    key = first.vitron["conversation"]
    raw = "raw <module>C</module><instruction>recolour: it to green</instruction><region>mask_1</region>"
    second = conversation(official, user(raw), extra_body={"vitron": {"conversation": key}})
    (event,) = second.vitron["events"]
    assert (event["name"], event["input"]) == ("img_2", "img_1")
    found = things_in(pixels(event["url"].split(",")[1]))
    assert sorted((thing.colour, thing.shape) for thing in found) == [
        ("blue", "square"),
        ("green", "circle"),
        ("yellow", "star"),
    ]
    # a client that sends all messages again, with the key in a header, is understood as well
    history = [
        user("mark the red circle"),
        {"role": "assistant", "content": "I mark it."},
        user("everything"),
    ]
    third = conversation(official, *history, extra_headers={"x-vitron-conversation": key})
    assert third.choices[0].message.content.startswith("mark the red circle | raw ")
    assert third.vitron["conversation"] == key
    official.delete(f"/conversations/{key}", cast_to=object)
    with pytest.raises(openai.NotFoundError, match="send all messages"):
        conversation(official, user("hello"), extra_body={"vitron": {"conversation": key}})


def test_a_client_that_keeps_the_history_itself(official, scene):
    asked = user(image(scene), text("mark the red circle"))
    first = conversation(official, asked)
    message = first.choices[0].message
    mask = first.vitron["events"][0]["url"]
    result = {
        "role": "tool",
        "tool_call_id": message.tool_calls[0].id,
        "content": [{"type": "image_url", "image_url": {"url": mask}}],
    }
    raw = "raw <module>C</module><instruction>remove: it</instruction><region>mask_1</region>"
    done = conversation(official, asked, message.model_dump(exclude_none=True), result, user(raw))
    (event,) = done.vitron["events"]
    assert event["type"] == "artefact", event
    found = things_in(pixels(event["url"].split(",")[1]))
    assert sorted(thing.shape for thing in found) == ["square", "star"]


def test_regions_and_videos_reach_the_model(official, generator, video):
    box = {"kind": "box", "x0": 0.25, "y0": 0.5, "x1": 0.75, "y1": 1, "frame": 2}
    video = {"type": "video", "video": {"url": image(video, "image/gif")["image_url"]["url"]}}
    done = conversation(official, user(video, {"type": "region", "region": box}, text("look")))
    assert "1 media" in done.choices[0].message.content
    _, (media,), (region,), _ = generator.seen[-1]
    assert media.data.shape == (4, 96, 96, 3)
    assert (region.media, region.frame) == (0, 2)
    expected = np.zeros((96, 96), dtype=bool)
    expected[48:, 24:72] = True
    assert np.array_equal(region.mask, expected)
    tracked = conversation(official, user(video, text("track the circle"))).vitron["events"][0]
    assert [len(mask["frames"]) for mask in tracked["instances"]] == [4]
    assert tracked["mime"] == "video/mp4"


def test_images(official, scene):
    made = official.images.generate(model="vitron", prompt="a red circle and a blue star", n=2, size="96x80")
    first, second = (pixels(image.b64_json) for image in made.data)
    assert first.shape == (80, 96, 3)
    assert not np.array_equal(first, second)
    alpha = np.where(mask_of(CIRCLE), 0, 255).astype(np.uint8)
    mask = io.BytesIO()
    Image.fromarray(np.dstack([np.zeros((96, 96, 3), np.uint8), alpha])).save(mask, format="PNG")
    edited = official.images.edit(
        model="vitron", image=("../../a; b.png", scene), mask=mask.getvalue(), prompt="make it green"
    )
    found = things_in(pixels(edited.data[0].b64_json))
    assert ("green", "circle") in {(thing.colour, thing.shape) for thing in found}
    assert len(found) == 3


def test_files(official, scene):
    kept = official.files.create(file=("../../etc/passwd; rm -rf.png", scene), purpose="vision")
    assert (kept.object, kept.bytes, kept.filename) == ("file", len(scene), "passwd; rm -rf.png")
    assert [file.id for file in official.files.list()] == [kept.id]
    assert official.files.retrieve(kept.id).purpose == "vision"
    assert official.files.content(kept.id).read() == scene
    done = conversation(
        official, user({"type": "image_url", "image_url": {"url": kept.id}}, text("mark the star"))
    )
    assert done.vitron["events"][0]["type"] == "artefact"
    part = {"type": "file", "file": {"file_id": kept.id}}
    assert "1 media" in conversation(official, user(part, text("look"))).choices[0].message.content
    assert official.files.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError):
        official.files.retrieve(kept.id)


def test_errors_have_the_types_of_the_client(official):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        official.chat.completions.create(model="gpt", messages=[user("x")])
    with pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
        conversation(official.with_options(api_key="wrong"), user("x"))
    with pytest.raises(openai.UnprocessableEntityError, match="toy painter"):
        official.images.generate(model="vitron", prompt="a photograph of my aunt")
    with pytest.raises(openai.InternalServerError) as failed:
        conversation(official, user("break"))
    assert "secret" not in str(failed.value)
    with pytest.raises(openai.APIError, match="the server failed"):
        list(conversation(official, user("break"), stream=True))
    assert conversation(official, user("go on")).choices[0].message.content == "You said 1: go on"


def test_a_client_that_goes_away_stops_the_work(scripted, serve):
    slow = scripted(pause=0.02)
    with (
        serve(create_app(slow, specialists=SpecialistRegistry())) as url,
        httpx.Client(base_url=url) as client,
    ):
        body = {"model": "vitron", "messages": [user("x" * 3000)], "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            next(response.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=body | {"stream": False}, timeout=0.3)
        # the only place in the line is free again: the next reply comes at once
        done = client.post("/v1/chat/completions", json=body | {"stream": False, "messages": [user("hi")]})
        assert done.json()["choices"][0]["message"]["content"] == "You said 1: hi"
        assert slow.closed == 3
        assert slow.written < 300


def test_too_many_requests_are_refused(scripted, serve):
    body = {"model": "vitron", "messages": [user("x" * 3000)], "stream": True}
    with serve(
        create_app(scripted(pause=0.02), specialists=SpecialistRegistry(), limits=Limits(requests=1))
    ) as url:
        client = httpx.Client(base_url=url)
        with client, client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()  # held: the stream ends with it
            next(lines)
            refused = client.post("/v1/chat/completions", json=body)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5) as client:
            assert conversation(client, user("hi")).choices[0].message.content == "You said 1: hi"
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"


def test_32_conversations_never_mix(scripted, specialists, serve, image_url):
    generator = scripted(pause=0.0005)
    limits = Limits(generations=4, requests=64)

    def converse(number):
        colour = (number * 7 % 256, number, 255 - number)
        url = image_url(np.full((8, 8, 3), colour))
        part = {"type": "image_url", "image_url": {"url": url}}
        with openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=60) as client:
            first = conversation(client, user(part, text(f"secret {number}")))
            extra = {"vitron": {"conversation": first.vitron["conversation"]}}
            conversation(client, user(f"draw a red circle, seed {number}"), extra_body=extra)
            seen = conversation(client, user("look"), extra_body=extra).choices[0].message.content
            said = "".join(
                chunk.choices[0].delta.content or ""
                for chunk in conversation(client, user("everything"), extra_body=extra, stream=True)
            )
        return first.vitron["conversation"], colour, seen, said

    with (
        serve(create_app(generator, specialists=specialists, limits=limits)) as base,
        ThreadPoolExecutor(32) as pool,
    ):
        found = list(pool.map(converse, range(32)))
    assert len({key for key, *_ in found}) == 32
    for number, (_, colour, seen, said) in enumerate(found):
        assert seen.startswith(f"I see 2 media [{colour}, ")
        assert said == f"secret {number} | draw a red circle, seed {number} | look | everything"
    assert 1 < generator.most_at_once <= 4
