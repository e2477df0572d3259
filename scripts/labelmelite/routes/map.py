"""The embedding map, and what is picked on it."""

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.errors import ApiError
from labelmelite.loop.plane import embedding_map
from labelmelite.routes.tasks import session_of


async def show(request: Request) -> Response:
    """GET: points of one category or of all."""
    security.require(request, "reader")
    query = request.query_params
    limit = http.number_of(query.get("limit"), "limit", 3000, 1, 20_000)
    text = query.get("category")
    category = None if not text else http.number_of(text, "category", 0)
    return http.answer(await run_in_threadpool(embedding_map, session_of(request), category, limit))


async def items(request: Request) -> Response:
    """GET: what lies at points of the map."""
    security.require(request, "reader")
    session, names = session_of(request), [one for one in request.query_params.get("items", "").split(",") if one]
    if len(names) > 200:
        raise ApiError("too_large", "At most 200 masks are shown at once.")

    def look() -> dict[str, object]:
        rows = np.array([session.free_row(name) for name in names], np.int64)
        return {"items": session.forest().items(rows)}

    return http.answer(await run_in_threadpool(look))


async def pick(request: Request) -> Response:
    """POST: these masks are asked next, one by one."""
    person = security.require(request, "annotator")
    given = await http.body(request)
    names, title = http.field(given, "items", list), http.field(given, "name", str, "")
    if not 0 < len(names) <= 10_000 or not all(isinstance(one, str) for one in names) or len(title) > 200:
        raise ApiError(
            "bad_request", "Between 1 and 10,000 masks are picked at once, under a name of at most 200 letters."
        )
    return http.answer(await run_in_threadpool(session_of(request).pick, person.id, names, title))


ROUTES = [
    Route("/api/map", show),
    Route("/api/map/items", items),
    Route("/api/map/questions", pick, methods=["POST"]),
]
