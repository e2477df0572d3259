"""What every route does with a request's body and a response's."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from labelmelite.errors import ApiError
from segloop.data.coco_tables import is_unicode

MAX_BODY: Final = 16 << 20
"""Bytes of a JSON body."""
_LARGEST: Final = 1 << 63
"""What SQLite and floats hold lies below."""


class Answer(JSONResponse):
    """JSON that can be sent whatever text it holds: half a character (`"\\ud800"`) is escaped, as it came."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


async def read_bytes(request: Request, limit: int = MAX_BODY) -> bytes:
    """Return the body, and refuse one of more than `limit` bytes before it is read whole."""
    declared = declared_length(request)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
    except ClientDisconnect:
        raise ApiError("bad_request", "The request was cut off; send it again.") from None
    return b"".join(parts)


def declared_length(request: Request) -> int | None:
    """Return how long the body is said to be; None where nothing, or nothing that makes sense, is said."""
    text = request.headers.get("content-length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


async def body(request: Request, limit: int = MAX_BODY) -> dict[str, Any]:
    """Return the JSON object that a request holds."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ApiError("bad_request", "The request must hold JSON (content type application/json).")
    raw = await read_bytes(request, limit)
    try:
        value = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ApiError("bad_request", f"The request is no valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise ApiError("bad_request", "The request must hold a JSON object.")
    return value


def field(value: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
    """Return a field of the wanted type; without `default` it must be there."""
    found = value.get(name)
    if found is None and default is not ...:
        return default
    wrong = isinstance(found, bool) and kind is not bool
    if wrong or not isinstance(found, kind):
        names = kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind)
        raise ApiError("bad_request", f"The field {name!r} is missing or no {names}.")
    if isinstance(found, int) and not -_LARGEST < found < _LARGEST:
        raise ApiError("bad_request", f"The field {name!r} is out of range.")
    if isinstance(found, str) and not is_unicode(found):
        raise ApiError("bad_request", f"The field {name!r} holds half a character.")
    return found


def number_of(text: str | None, name: str, default: int, low: int = 0, high: int = 1 << 53) -> int:
    """Return a whole number of the query, clipped to a range."""
    if text is None or text == "":
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ApiError("bad_request", f"{name} must be a whole number.")
    return min(max(int(text), low), high)


def path_number(request: Request, name: str) -> int:
    """Return a number of the path; anything else is not found."""
    text = str(request.path_params[name])
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ApiError("not_found", "There is no such page or record.")
    return int(text)


def echoed(value: Any) -> int | None:
    """Return the number that a page gave an event or an answer, for the acknowledgement; None if it is none."""
    number = value.get("client_no") if isinstance(value, dict) else None
    return number if type(number) is int else None


def answer(value: Any, status: int = 200) -> Answer:
    """Return a JSON response that nobody stores."""
    return Answer(value, status, headers={"Cache-Control": "no-store"})


async def picture(request: Request, tag: Callable[[], str], make: Callable[[], tuple[bytes, str]]) -> Response:
    """Return a picture, or 304 when the browser has it: it asks each time, because the file may have become another.

    Parameters
    ----------
    tag, make
        Called in a thread: the ETag of the picture; its bytes and media type.
    """
    found = await run_in_threadpool(tag)
    headers = {"Cache-Control": "private, no-cache", "ETag": found}
    had = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if found in had:
        return Response(status_code=304, headers=headers)
    data, media = await run_in_threadpool(make)
    return Response(data, media_type=media, headers=headers)


def _too_large(limit: int) -> ApiError:
    return ApiError("too_large", f"The request is larger than {limit >> 20} MiB.")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
