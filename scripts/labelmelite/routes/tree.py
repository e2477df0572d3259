"""The tree: why masks were accepted."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.routes.tasks import session_of


async def roots(request: Request) -> Response:
    """GET: the category nodes."""
    security.require(request, "reader")
    session = session_of(request)
    return http.answer(await run_in_threadpool(lambda: {"nodes": session.forest().roots()}))


async def node(request: Request) -> Response:
    """GET: a node with its sample, its answers, its children and its parents."""
    person, query = security.require(request, "reader"), request.query_params
    session, number = session_of(request), http.path_number(request, "node")
    sample = http.number_of(query.get("sample"), "sample", 30, 0, 200)
    offset = http.number_of(query.get("offset"), "offset", 0)
    names = person.may("owner")
    return http.answer(await run_in_threadpool(lambda: session.forest().look(number, sample, offset, names)))


ROUTES = [Route("/api/tree", roots), Route("/api/tree/{node}", node)]
