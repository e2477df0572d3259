"""Changes of objects come in here, and each is acknowledged or refused by itself."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import events, http, security
from labelmelite.errors import ApiError
from labelmelite.events import Conflict

MAX_EVENTS: Final = 500


async def post(request: Request) -> Response:
    """POST: events in the order they happened."""
    person = security.require(request, "annotator")
    value = await http.body(request)
    client = client_of(value)
    given = http.field(value, "events", list)
    if len(given) > MAX_EVENTS:
        raise ApiError("too_large", f"At most {MAX_EVENTS} events fit a request.")
    return http.answer({"acks": [await _one(request, person.id, client, one) for one in given]})


def client_of(value: dict[str, Any]) -> str:
    """Return the name that a page gave itself; it counts its events under it."""
    client: str = http.field(value, "client", str)
    if not 0 < len(client) <= 100 or not client.isprintable():
        raise ApiError("bad_request", "The name of a client is text of 1 to 100 characters.")
    if events.is_reserved(client):
        raise ApiError("bad_request", f"The server itself counts its events as {client[:20]!r}. Choose another name.")
    return client


async def _one(request: Request, annotator: str, client: str, value: Any) -> dict[str, Any]:
    store = request.app.state.store
    number = http.echoed(value)
    try:
        event = events.parse(value, client)
        seq = await store.write(lambda c: events.accept(c, annotator, store.clock.now(), event))
    except Conflict as error:
        return {"client_no": number, **error.to_json(), "present": error.present}
    except ApiError as error:
        if error.code == "storage":
            raise  # nothing of this request is certain any more; the page sends all of it again
        return {"client_no": number, **error.to_json(), "present": None}
    return {"client_no": number, "seq": seq}


ROUTES = [Route("/api/events", post, methods=["POST"])]
