# SPDX-License-Identifier: Apache-2.0
"""``/v1/files``: images and videos for several requests; kept in memory, never on disk."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from vitron.server.errors import ApiError
from vitron.server.state import state_of
from vitron.server.store import StoredFile

router = APIRouter()


def _file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.key,
        "object": "file",
        "bytes": len(file.content),
        "created_at": file.created,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


@router.post("/v1/files")
async def upload(request: Request) -> dict[str, Any]:
    """Store an image or a video; anything else is refused."""
    state = state_of(request)
    async with request.form(max_files=1, max_fields=8) as form:
        file, purpose = form.get("file"), form.get("purpose", "vision")
        if not isinstance(file, UploadFile):
            raise ApiError(400, "file is missing", "missing_file", "file")
        content, name = await file.read(), file.filename or "file"
    await to_thread.run_sync(state.parser().decode, content, "the file")
    # a name is sent back and never opened: the last part of a path is enough
    short = name.replace("\\", "/").rsplit("/", 1)[-1][:200] or "file"
    stored = StoredFile(content=content, filename=short, purpose=str(purpose)[:64])
    return _file_object(state.files.add(stored))


@router.get("/v1/files")
async def listed(request: Request) -> dict[str, Any]:
    """List all files."""
    return {
        "object": "list",
        "data": [_file_object(file) for file in state_of(request).files.all()],
        "has_more": False,
    }


@router.get("/v1/files/{key}")
async def one(key: str, request: Request) -> dict[str, Any]:
    """Describe a file."""
    return _file_object(state_of(request).files.get(key))


@router.get("/v1/files/{key}/content")
async def content(key: str, request: Request) -> Response:
    """Return the bytes of a file."""
    file = state_of(request).files.get(key)
    headers = {"x-content-type-options": "nosniff", "content-disposition": "attachment"}
    return Response(file.content, media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{key}")
async def delete(key: str, request: Request) -> dict[str, Any]:
    """Delete a file."""
    state_of(request).files.delete(key)
    return {"id": key, "object": "file", "deleted": True}
