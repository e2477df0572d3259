"""The owner brings in an existing data set."""

import hashlib
import json
from pathlib import Path
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.errors import ApiError
from labelmelite.importing import import_source
from labelmelite.sources.base import Source
from labelmelite.sources.coco import CocoSource
from labelmelite.sources.folder import folder_source
from segloop.errors import SegloopError
from segloop.files import atomic_file

MAX_UPLOAD: Final = 2 << 30
_SHOWN: Final = 200


async def list_roots(request: Request) -> Response:
    """GET: folders and URL bases that may hold images."""
    security.require(request, "owner")
    return http.answer(request.app.state.pixels.roots())


async def post(request: Request) -> Response:
    """POST: a COCO file whose images lie in an allowed place, or such a folder alone."""
    security.require(request, "owner")
    declared = http.declared_length(request)
    if declared is None or declared > MAX_UPLOAD:
        raise ApiError("too_large", f"The file must be smaller than {MAX_UPLOAD >> 30} GiB, and its size be told.")
    try:
        name, root, upload = await _fields(request)
    except ClientDisconnect:
        raise ApiError("bad_request", "The request was cut off; send it again.") from None
    return http.answer(await run_in_threadpool(_import, request, name, root, upload), 201)


async def _fields(request: Request) -> tuple[str, str, bytes | None]:
    """Return the name, the place of the images, and the file."""
    async with request.form(max_files=1, max_fields=10) as form:
        name, root, file = form.get("name"), form.get("images"), form.get("annotations")
        if not isinstance(name, str) or not isinstance(root, str):
            raise ApiError("bad_request", "A data set needs a name and a place of images.")
        name = " ".join(name.split())
        if not name or len(name) > 200 or not name.isprintable():
            raise ApiError("bad_request", "A name is text of 1 to 200 characters.")
        if root not in request.app.state.pixels.roots():
            raise ApiError("forbidden", "This place of images is not allowed. Start the server with --allow.")
        upload = await file.read() if isinstance(file, UploadFile) and file.filename else None
    return name, root, upload


def _import(request: Request, name: str, root: str, upload: bytes | None) -> dict[str, object]:
    store = request.app.state.store
    try:
        source = _source(store.folder, name, root, upload)
        result = import_source(store, source)
    except (ApiError, OSError):
        raise
    except SegloopError as error:
        raise ApiError("bad_request", str(error)) from None
    except RecursionError:
        raise ApiError("bad_request", "The file's values lie too deep in each other.") from None
    skipped = source.skipped
    return {"id": result.dataset, "skipped": skipped[:_SHOWN], "skipped_count": len(skipped)}


def _source(folder: Path, name: str, root: str, upload: bytes | None) -> Source:
    if upload is None:
        return folder_source(Path(root), name)
    try:
        value = json.loads(upload)
    except (ValueError, RecursionError) as error:
        raise SegloopError(f"The file is no valid JSON ({error}).") from None
    # Kept, so that the data set can be read again; named by its content, so that a repeat finds it.
    path = folder / "imports" / f"{hashlib.sha256(upload).hexdigest()[:32]}.json"
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(upload)
    except OSError as error:
        raise ApiError("storage", f"The file could not be kept ({error.strerror}). Nothing was saved.") from None
    return CocoSource(path, root, name, value=value)


ROUTES = [
    Route("/api/roots", list_roots, methods=["GET"]),
    Route("/api/datasets", post, methods=["POST"]),
]
