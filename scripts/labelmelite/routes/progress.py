"""How far the iteration is."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.loop.progress import progress
from labelmelite.routes.tasks import session_of


async def show(request: Request) -> Response:
    """GET: what was answered, what remains, what it costs."""
    person = security.require(request, "reader")
    return http.answer(await run_in_threadpool(progress, session_of(request), person.may("owner")))


ROUTES = [Route("/api/progress", show)]
