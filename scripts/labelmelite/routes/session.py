"""Who is signed in, and a person's own keys and name."""

import json
import sqlite3
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import crowd, http, security
from labelmelite.crowd import pay
from labelmelite.errors import ApiError
from labelmelite.security import Guard, Person


async def show(request: Request) -> Response:
    """GET: who this is and what the pages need to know."""
    return http.answer(await described(request, security.require(request, "reader")))


async def sign_in(request: Request) -> Response:
    """POST: exchange the token of a link for a session; a platform's link also says whom the platform sends."""
    value = await http.body(request, 1 << 16)
    token = http.field(value, "token", str)
    given = http.field(value, "crowd", dict, None)
    state = request.app.state
    guard: Guard = state.guard
    kind = await state.store.read(lambda c: guard.kind_of(c, token))
    visitor = None if given is None or kind == "lab" else crowd.visitor(state.settings, kind, given)
    session, person = await state.store.write(lambda c: guard.redeem(c, token, visitor))
    if visitor is not None:
        await run_in_threadpool(pay.note, state.settings.data, state.store.clock.now(), person, kind, visitor)
    return await begun(request, session, person)


async def begun(request: Request, session: str, person: Person) -> Response:
    """Return the response that begins a session: the cookie, and the token for a header."""
    response = http.answer({**await described(request, person), "session": session})
    settings = request.app.state.settings
    response.set_cookie(
        request.app.state.guard.cookie,
        session,
        max_age=int(settings.session_days * security.DAY),
        httponly=True,
        samesite="strict",
        secure=settings.public is not None and settings.public.startswith("https://"),
    )
    return response


async def sign_out(request: Request) -> Response:
    """DELETE: end the session."""
    person = security.require(request, "reader")
    guard: Guard = request.app.state.guard
    await request.app.state.store.write(lambda c: guard.close_session(c, person))
    guard.look_again()
    response = http.answer({})
    response.delete_cookie(guard.cookie, httponly=True, samesite="strict")
    return response


async def put_keys(request: Request) -> Response:
    """PUT: keep a person's own keys."""
    person = security.require(request, "reader")
    keys = await http.body(request, 1 << 16)
    if len(keys) > 200 or not all(
        isinstance(value, list) and len(value) < 20 and all(isinstance(one, str) and len(one) < 50 for one in value)
        for value in keys.values()
    ):
        raise ApiError("bad_request", "Keys are lists of names by action.")
    await request.app.state.store.write(
        lambda c: c.execute("UPDATE annotator SET keys = ? WHERE id = ?", (json.dumps(keys), person.id)).rowcount
    )
    return http.answer({})


async def put_name(request: Request) -> Response:
    """PUT: keep a person's own name, apart from the answers."""
    person = security.require(request, "reader")
    name = " ".join(http.field(await http.body(request, 1 << 16), "name", str).split())
    if len(name) > 100 or not name.isprintable():
        raise ApiError("bad_request", "A name is text of at most 100 characters.")
    await request.app.state.store.write(
        lambda c: c.execute("INSERT OR REPLACE INTO name VALUES (?, ?)", (person.id, name)).rowcount
    )
    return http.answer({})


async def described(request: Request, person: Person) -> dict[str, Any]:
    """Return a session as docs/labelmelite-api.md describes it."""
    settings = request.app.state.settings
    loop = request.app.state.loop

    def look(connection: sqlite3.Connection) -> tuple[str, dict[str, Any]]:
        row = connection.execute(
            "SELECT keys, name FROM annotator LEFT JOIN name ON annotator = id WHERE id = ?", (person.id,)
        ).fetchone()
        return row["name"] or "", json.loads(row["keys"])

    name, keys = await request.app.state.store.read(look)
    return {
        "annotator": {"id": person.id, "name": name, "role": person.role},
        "csrf": person.csrf,
        "adapter": person.crowd.get("adapter", person.adapter),
        "preview": person.preview,
        "asks": loop is not None,
        "loop": None if loop is None else loop.described(),
        "question": asdict(settings.question if loop is None else loop.question),
        "keys": keys,
    }


ROUTES = [
    Route("/api/session", show, methods=["GET"]),
    Route("/api/session", sign_in, methods=["POST"]),
    Route("/api/session", sign_out, methods=["DELETE"]),
    Route("/api/session/keys", put_keys, methods=["PUT"]),
    Route("/api/session/name", put_name, methods=["PUT"]),
]
