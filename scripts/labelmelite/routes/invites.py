"""Links that let people in, and what these people are to be paid."""

import sqlite3
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.clock import iso
from labelmelite.crowd import pay
from labelmelite.errors import ApiError

KINDS: Final = ("lab", "study", "mturk")


async def list_all(request: Request) -> Response:
    """GET: all invites, without their tokens."""
    security.require(request, "owner")
    return http.answer({"invites": await request.app.state.store.read(_listed)})


async def post(request: Request) -> Response:
    """POST: make a link; its token is shown this once."""
    security.require(request, "owner")
    value = await http.body(request)
    name = " ".join(http.field(value, "name", str, "").split())
    role = http.field(value, "role", str, "annotator")
    kind = http.field(value, "kind", str, "lab")
    days = http.field(value, "days", (int, float), 7)
    if role not in security.ROLES or kind not in KINDS or not 0 < days <= 366 or len(name) > 100:
        raise ApiError(
            "bad_request",
            f"An invite has a name, a role ({', '.join(security.ROLES)}), a kind ({', '.join(KINDS)})"
            " and lasts up to 366 days.",
        )
    if kind != "lab" and role != "annotator":
        raise ApiError("bad_request", "Platforms send annotators only.")
    if kind == "mturk" and request.app.state.settings.adapter != "mturk":
        raise ApiError("bad_request", "MTurk shows pages in a frame. Start the server with --adapter mturk.")
    guard = request.app.state.guard
    made = await request.app.state.store.write(lambda c: guard.invite(c, name, role, float(days), kind))
    path = f"/join#{made['token']}" if kind == "lab" else f"/{kind}?token={made['token']}"
    base = request.app.state.settings.public or f"{request.url.scheme}://{request.headers.get('host', '')}"
    return http.answer({**made, "link": f"{base.rstrip('/')}{path}"}, 201)


async def delete(request: Request) -> Response:
    """DELETE: end a link and every session that it began."""
    security.require(request, "owner")
    guard = request.app.state.guard
    await request.app.state.store.write(lambda c: guard.revoke(c, str(request.path_params["invite"])))
    guard.look_again()
    return http.answer({})


async def show_pay(request: Request) -> Response:
    """GET: what everybody did and is to be paid, as CSV."""
    security.require(request, "owner")
    state = request.app.state
    people = pay.read(state.settings.data)
    text = await state.store.read(lambda c: pay.table(c, people, state.settings.wage))
    return Response(
        text,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="pay.csv"', "Cache-Control": "no-store"},
    )


def _listed(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT invite.*, name.name AS known FROM invite LEFT JOIN name ON name.annotator = invite.annotator"
        " ORDER BY created DESC LIMIT 1000"
    )
    return [
        {
            "id": row["id"],
            "name": row["known"] or row["name"],
            "role": row["role"],
            "kind": row["kind"],
            "annotator": row["annotator"],
            "created": iso(row["created"]),
            "expires": iso(row["expires"]),
            "used": None if row["used"] is None else iso(row["used"]),
            "revoked": None if row["revoked"] is None else iso(row["revoked"]),
        }
        for row in rows
    ]


ROUTES = [
    Route("/api/invites", list_all, methods=["GET"]),
    Route("/api/invites", post, methods=["POST"]),
    Route("/api/invites/{invite}", delete, methods=["DELETE"]),
    Route("/api/pay", show_pay, methods=["GET"]),
]
