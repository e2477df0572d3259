"""Masks whose truth the owner knows."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.errors import ApiError
from labelmelite.routes.tasks import session_of


async def mark(request: Request) -> Response:
    """PUT: an answered mask becomes a gold mask, or ceases to be one."""
    security.require(request, "owner")
    given = await http.body(request)
    task, item, reply = (http.field(given, name, str) for name in ("task", "item", "reply"))
    if reply not in ("yes", "no", "none"):
        raise ApiError("bad_request", "The truth of a mask is yes, no or none.")
    await run_in_threadpool(session_of(request).mark_gold, task, item, reply)
    return http.answer({})


ROUTES = [Route("/api/gold", mark, methods=["PUT"])]
