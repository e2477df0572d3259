"""A person's own answers, to be looked at again and changed."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.loop import progress
from labelmelite.routes.tasks import session_of


async def review(request: Request) -> Response:
    """GET: one's own answers, newest first."""
    person, query = security.require(request, "annotator"), request.query_params
    offset = http.number_of(query.get("offset"), "offset", 0)
    limit = http.number_of(query.get("limit"), "limit", 60, 1, 300)
    return http.answer(await run_in_threadpool(progress.review, session_of(request), person.id, offset, limit))


ROUTES = [Route("/api/review", review)]
