# SPDX-License-Identifier: Apache-2.0
"""Images and masks without a conversation: ``/v1/images/generations``, ``/v1/images/edits``, ``/v1/segment``.

The model takes no part: the prompt goes to a specialist unchanged, and is never parsed for tags.
"""

from __future__ import annotations

import base64
import io
import threading
import time
from typing import Any, Literal, cast

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, TypeAdapter
from starlette.datastructures import FormData, UploadFile

from vitron.protocol.contract import ArgValue, Instruction, Invocation, Region, Turn
from vitron.protocol.media import Artefact, encode
from vitron.protocol.regions import mask_to_region
from vitron.server.errors import ApiError
from vitron.server.responses import result_event
from vitron.server.schemas import ImageRequest, RequestModel, SegmentRequest
from vitron.server.state import ServerState, state_of
from vitron.server.streaming import until_gone
from vitron.session import CallResult

router = APIRouter()
_REGION = TypeAdapter[Any](Region)


class _EditForm(RequestModel):
    prompt: str = Field(min_length=1)
    model: str | None = None
    n: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=10**9)
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    stream: Literal["false"] | None = None


def _run_call(state: ServerState, call: Invocation, media: Artefact | None, seed: int) -> CallResult:
    """Run one call in a conversation of its own.

    Raises:
        PlanError: If it cannot be planned.
        RegionError: If the region does not fit.
        SpecialistError: If no specialist can run it.
    """
    conversation = state.conversation()
    if media is not None:
        conversation.add_media(media)
    (result,) = conversation.run_calls(Turn(invocations=(call,)), seed=seed)
    if result.error is not None:
        raise result.error
    return result


async def _images(
    request: Request, call: Invocation, media: Artefact | None, count: int, seed: int
) -> dict[str, Any]:
    state = state_of(request)
    if count > state.limits.images:
        raise ApiError(400, f"n can be at most {state.limits.images}, got {count}", "too_many_images", "n")

    def one(number: int) -> dict[str, str]:
        made = _run_call(state, call, media, seed + number).artefact
        assert made is not None
        return {"b64_json": base64.b64encode(encode(made)[0]).decode()}

    async def every() -> list[dict[str, str]]:
        return [await to_thread.run_sync(one, number) for number in range(count)]

    with state.queue.admit():
        data = await until_gone(request, every(), threading.Event())
    return {"created": int(time.time()), "data": data}


@router.post("/v1/images/generations")
async def generate(body: ImageRequest, request: Request) -> dict[str, Any]:
    """Generate images from a prompt."""
    state = state_of(request)
    state.check_model(body.model)
    args = dict[str, ArgValue]()
    if body.size not in (None, "auto"):
        width, height = map(int, str(body.size).split("x"))
        if width * height > state.limits.pixels:
            raise ApiError(
                400, f"size has at most {state.limits.pixels} pixels, got {body.size}", "too_large", "size"
            )
        args["size"] = str(body.size)
    call = Invocation(module="text_to_image", instruction=(Instruction(text=body.prompt),), args=args)
    return await _images(request, call, None, body.n or 1, body.seed or 0)


@router.post("/v1/images/edits")
async def edit(request: Request) -> dict[str, Any]:
    """Edit an image, everywhere or where a mask is transparent."""
    state = state_of(request)
    async with request.form(max_files=4, max_fields=32, max_part_size=state.limits.body_bytes) as form:
        fields = _EditForm.model_validate({key: each for key, each in form.items() if isinstance(each, str)})
        state.check_model(fields.model)
        image, mask = await _file(form, "image"), await _file(form, "mask")
        region = form.get("region")
    if image is None:
        raise ApiError(400, "image is missing", "missing_file", "image")
    parser = state.parser()
    media = await to_thread.run_sync(parser.decode, image, "the image")
    if media.kind != "image":
        raise ApiError(400, "image must be one image, not a video", "bad_media", "image")
    place = None if region is None else _REGION.validate_json(str(region))
    if mask is not None:
        if (await to_thread.run_sync(parser.decode, mask, "the mask")).kind != "image":
            raise ApiError(400, "mask must be one image, not a video", "bad_media", "mask")
        editable = await to_thread.run_sync(_editable, mask)
        if not editable.any():
            raise ApiError(400, "the mask is empty: none of its pixels is transparent", "bad_media", "mask")
        place = mask_to_region(editable)
    call = Invocation(
        module="image_editing", instruction=(Instruction(text=fields.prompt),), region=cast("Any", place)
    )
    return await _images(request, call, media, fields.n, fields.seed)


async def _file(form: FormData, name: str) -> bytes | None:
    """Return the one file of a field, which some clients send as a list."""
    found = [each for key in (name, f"{name}[]") for each in form.getlist(key)]
    if len(found) > 1:
        raise ApiError(
            400, f"only one {name} can be edited at a time, got {len(found)}", "too_many_images", name
        )
    if found and not isinstance(found[0], UploadFile):
        raise ApiError(400, f"{name} must be a file", "missing_file", name)
    return await found[0].read() if found and isinstance(found[0], UploadFile) else None


def _editable(content: bytes) -> NDArray[np.bool_]:
    """Return the pixels that a mask opens for editing: transparent ones, or white ones without alpha."""
    with Image.open(io.BytesIO(content)) as mask:
        if mask.has_transparency_data:
            return np.asarray(np.asarray(mask.convert("RGBA"))[..., 3] == 0, dtype=np.bool_)
        return np.asarray(np.asarray(mask.convert("L")) > 127, dtype=np.bool_)


@router.post("/v1/segment")
async def segment(body: SegmentRequest, request: Request) -> dict[str, Any]:
    """Segment an image or a video: by a prompt, by a region, or everything."""
    state = state_of(request)
    source = body.image if body.image is not None else body.video
    if source is None:
        raise ApiError(400, "image or video is missing", "missing_file", "image")
    media = await to_thread.run_sync(state.parser().media, source, "the image")
    verb = "" if body.prompt.strip() or body.region else ("panoptic" if media.kind == "image" else "segment")
    call = Invocation(
        module="image_segmentation" if media.kind == "image" else "video_segmentation",
        instruction=(Instruction(verb=verb, text=body.prompt.strip() or ("everything" if verb else "this")),),
        region=body.region,
        frames=body.frames,
    )

    def work() -> dict[str, Any]:
        event = result_event(_run_call(state, call, media, body.seed or 0), "", media)
        notes = (media.note and f"{media.note} are used", event["note"])
        return event | {"note": "; ".join(filter(None, notes))}

    with state.queue.admit():
        event = await until_gone(request, to_thread.run_sync(work), threading.Event())
    kept = ("kind", "size", "specialist", "note", "failures", "instances", "url", "overlay_url")
    return {"object": "segmentation", "created": int(time.time())} | {
        key: event[key] for key in kept if key in event
    }
