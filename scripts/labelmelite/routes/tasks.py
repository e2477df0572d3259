"""Tasks: a batch of questions, edits or redraws for one annotator, and what is seen of its items."""

from typing import cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.crowd import completion, form, submission_of
from labelmelite.errors import ApiError
from labelmelite.loop.session import LoopSession
from labelmelite.routes.events import client_of
from labelmelite.work import Work


def work_of(request: Request) -> Work:
    """Return what gives tasks.

    Raises
    ------
    ApiError
        If this server has no questions.
    """
    work = request.app.state.loop
    if work is None:
        raise ApiError("not_found", "This server has no questions: it was started on a data set alone.")
    return cast(Work, work)


def session_of(request: Request) -> LoopSession:
    """Return the iteration of the loop that is served.

    Raises
    ------
    ApiError
        If this server has none.
    """
    session = work_of(request)
    if not isinstance(session, LoopSession):
        raise ApiError("not_found", "This server holds questions alone, no iteration of the loop.")
    return session


async def begin(request: Request) -> Response:
    """POST: the task that this person has begun, or the next one."""
    person = security.require(request, "reader")
    given = await http.body(request)
    kind, layout = http.field(given, "kind", str), http.field(given, "layout", str, None)
    wanted = http.field(given, "items", list, [])
    work = work_of(request)
    if person.preview:
        return http.answer(await run_in_threadpool(work.preview, layout))
    security.require(request, "annotator")
    if layout not in (None, "filmstrip", "grid"):
        raise ApiError("bad_request", "A layout is filmstrip or grid.")
    if len(wanted) > 1000 or not all(isinstance(one, str) for one in wanted):
        raise ApiError("bad_request", "Items are at most 1,000 names.")
    return http.answer(await run_in_threadpool(work.next_task, person.id, kind, layout, wanted))


async def answers(request: Request) -> Response:
    """POST: save answers, each by itself."""
    person = security.require(request, "annotator")
    given = await http.body(request)
    client, some = client_of(given), http.field(given, "answers", list)
    if len(some) > 1000:
        raise ApiError("too_large", "At most 1,000 answers come at once.")
    acks = await run_in_threadpool(work_of(request).answer, person.id, _task(request), client, some)
    return http.answer({"acks": acks})


async def renew(request: Request) -> Response:
    """POST: keep a task for longer."""
    person = security.require(request, "annotator")
    return http.answer(await run_in_threadpool(work_of(request).renew, person.id, _task(request)))


async def submit(request: Request) -> Response:
    """POST: end a task."""
    person = security.require(request, "annotator")
    seconds = float(http.field(await http.body(request), "seconds", (int, float)))
    if not 0 <= seconds < 1e9:
        raise ApiError("bad_request", "The seconds of a task are a number from 0 on.")
    submission = submission_of(request.app.state.guard.salt, person.crowd.get("submission"))
    result = await run_in_threadpool(work_of(request).submit, person.id, _task(request), seconds, submission)
    submitted = result.pop("submitted")
    target = completion(request.app.state.settings, person, submitted) if result["accepted"] else None
    return http.answer(result | {"completion": target, "form": form(person) if target else None})


async def give_back(request: Request) -> Response:
    """DELETE: end a task before all of it is answered."""
    person = security.require(request, "annotator")
    await run_in_threadpool(work_of(request).give_back, person.id, _task(request))
    return http.answer({})


async def crop(request: Request) -> Response:
    """GET: the plain square crop around an item."""
    person = security.require(request, "reader")
    out = http.number_of(request.query_params.get("side"), "side", 400, 32, 1200)
    item, pixels, work = str(request.path_params["item"]), request.app.state.pixels, work_of(request)
    return await http.picture(
        request,
        lambda: pixels.tag(*work.place(person.id, item), f"crop {item} {out}"),
        lambda: (work.crop(person.id, item, out, pixels), "image/jpeg"),
    )


async def image(request: Request) -> Response:
    """GET: the whole image of an item."""
    person = security.require(request, "reader")
    side = request.query_params.get("side")
    most = None if side is None else http.number_of(side, "side", 1600, 32, 8192)
    item, pixels, work = str(request.path_params["item"]), request.app.state.pixels, work_of(request)
    return await http.picture(
        request,
        lambda: pixels.tag(*work.place(person.id, item), f"image {most}"),
        lambda: work.image(person.id, item, most, pixels),
    )


def _task(request: Request) -> str:
    return str(request.path_params["task"])


ROUTES = [
    Route("/api/tasks", begin, methods=["POST"]),
    Route("/api/tasks/{task}/answers", answers, methods=["POST"]),
    Route("/api/tasks/{task}/renew", renew, methods=["POST"]),
    Route("/api/tasks/{task}/submit", submit, methods=["POST"]),
    Route("/api/tasks/{task}", give_back, methods=["DELETE"]),
    Route("/api/items/{item}/crop", crop),
    Route("/api/items/{item}/image", image),
]
