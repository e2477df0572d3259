"""Cases of `fuzz.py`: requests to LabelMeLite, given to the application as a server gives them, byte by byte.

What uvicorn would refuse by itself (headers that are no headers) reaches the application here as well. A server lives
for `BLOCK` requests; a case is repeated by running its block from the start.
"""

import asyncio
import json
import shutil
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from PIL import Image
from starlette.routing import Route

from fuzz_formats import Case, damaged, odd_value
from labelling_tasks import served
from labelmelite.app import create_app
from labelmelite.importing import import_source
from labelmelite.loop.session import LoopSession
from labelmelite.settings import Settings
from labelmelite.sources.coco import CocoSource
from segloop.data import masks
from segloop.simulation.worlds import KnownWorld, world_of_arrays
from simulated_world import simulate as simulated_world

BLOCK: Final = 1000
ROLES: Final = ("owner", "annotator", "reader", "nobody")
LARGEST: Final = 16 << 20
"""Bytes that any response of this small server may have."""
_SIZE = (24, 32)
_TEXTS: Final = (
    *(
        "",
        "0",
        "1",
        "2",
        "3",
        "-1",
        "--5",
        "²",
        "１",
        "1e3",
        "9" * 18,
        "9" * 400,
        "null",
        "true",
        "NaN",
        "../../etc/passwd",
    ),
    *("%00", "a\0b", "é", "'; DROP TABLE event; --", "%", "_" * 199, "<script>", "a" * 5000, "mask-1", "finished"),
)
_COOKIE: Final = b"COOKIE"
"""Stands for the name of the session's cookie, which each database has its own of."""
_HEADERS: Final = (
    (b"host", b"[", b"evil.example", b"[::1", b"127.0.0.1:x", b"", b"\xff"),
    (b"origin", b"http://[", b"null", b"https://evil.example", b"http://127.0.0.1"),
    (b"sec-fetch-site", b"cross-site", b"\xb2"),
    (b"content-length", b"\xb2", b"-1", b"9" * 30, b"99999999999", b"x", b""),
    (b"content-type", b"text/plain", b"application/json; charset=\xff", b"multipart/form-data; boundary=\xb2", b""),
    (b"cookie", _COOKIE + b"=\xff", _COOKIE + b"=" + b"a" * 4000, b"=;=", _COOKIE),
    (b"authorization", b"Bearer", b"Bearer \xff", b"Basic eDp5", b"Bearer " + b"a" * 300),
    (b"x-labelmelite", b"\xff", b""),
    (b"range", b"bytes=0-", b"bytes=5-2", b"bytes=-1,-2,-3", b"x"),
    (b"if-modified-since", b"yesterday", b"\xff"),
    (b"accept-encoding", b"\xff"),
)
_METHODS: Final = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "X")


class Served:
    """An application with a data set and an iteration of the loop, and somebody of each role who has signed in."""

    def __init__(self, folder: Path, known: KnownWorld) -> None:
        folder.mkdir()
        self._stack = ExitStack()
        session: LoopSession = self._stack.enter_context(served(known, "per_mask", folder / "run"))
        self.store = session.store
        settings = Settings(data=self.store.folder, roots=(str((folder / "images").resolve()),), cache_bytes=1 << 22)
        import_source(self.store, CocoSource(_data_set(folder), settings.roots[0]))
        self.root = settings.roots[0]
        self.app = create_app(settings, self.store, lambda *_: session)
        self.people = dict(self._people())
        self.cookie = self.app.state.guard.cookie.encode()
        # What a page has been told: names for paths and bodies.
        self.tasks: list[str] = ["0" * 16]
        self.items: list[str] = [f"mask-{session.iteration.world.prediction[0]}"]

    def _people(self) -> Iterator[tuple[str, list[tuple[bytes, bytes]]]]:
        guard = self.app.state.guard
        yield "nobody", []
        for role in ROLES[:3]:
            made = self.store.write_now(lambda c, role=role: guard.invite(c, role, role, 1))
            token, person = self.store.write_now(lambda c, made=made: guard.redeem(c, made["token"]))
            yield (
                role,
                [(b"authorization", f"Bearer {token}".encode()), (b"x-labelmelite", person.csrf.encode())],
            )

    def close(self) -> None:
        """End it."""
        self._stack.close()


def _data_set(folder: Path) -> Path:
    (folder / "images").mkdir()
    mask = np.zeros(_SIZE, bool)
    mask[3:9, 2:7] = True
    rle = masks.to_json(masks.encode(mask))
    images, annotations = [], []
    for number in (1, 2, 3):
        Image.fromarray(np.full((*_SIZE, 3), 40 * number, np.uint8)).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": _SIZE[0], "width": _SIZE[1]})
        annotations.append({"id": number, "image_id": number, "category_id": 3, "segmentation": rle, "score": 0.5})
    value = {"info": {"description": "three"}, "images": images, "annotations": annotations}
    value["categories"] = [{"id": 3, "name": "cat", "definition": "A small animal."}, {"id": 7, "name": "dog"}]
    path = folder / "set.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def request_cases(folder: Path) -> Case:
    """Return a function that sends one request: it is answered below 500, in bounds, and does what its sender may."""
    arrays = vars(simulated_world("D", n=300, categories=4, per_subcluster=20, seed=0))
    known = world_of_arrays(arrays, arrays["good"], "D", seed=0)
    loop = asyncio.new_event_loop()
    state: dict[str, Any] = {"served": None, "number": 0}

    def renew() -> Served:
        if state["served"] is not None:
            state["served"].close()
            shutil.rmtree(folder / str(state["number"] - 1))
        state["served"] = Served(folder / str(state["number"]), known)
        state["number"] += 1
        state["sent"] = 0
        found: Served = state["served"]
        return found

    def case(numbers: np.random.Generator) -> str:
        server: Served = state["served"]
        if server is None or state["sent"] == BLOCK:
            server = renew()
        state["sent"] += 1
        return loop.run_until_complete(_one(server, numbers))

    def end() -> None:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        if state["served"] is not None:
            state["served"].close()

    # Whoever asked for cases lets go of the function in the end.
    weakref.finalize(case, end)
    return case


async def _one(server: Served, numbers: np.random.Generator) -> str:
    role = ROLES[numbers.choice(4, p=[0.35, 0.4, 0.15, 0.1])]
    route = _pick(server.app.routes, numbers)
    assert isinstance(route, Route)
    methods = sorted(route.methods or ())
    method = _pick(methods, numbers) if numbers.random() < 0.85 else _pick(_METHODS, numbers)
    if (method, route.path) == ("DELETE", "/api/session"):
        method = "GET"  # else nobody is signed in before long
    path = _path(server, route.path, numbers)
    kind, body = _body(server, route.path, numbers) if method not in ("GET", "HEAD") else (b"application/json", b"")
    headers = [(b"host", b"127.0.0.1"), (b"content-type", kind), (b"content-length", str(len(body)).encode())]
    headers += server.people[role]
    if numbers.random() < 0.15:
        name, *values = _pick(_HEADERS, numbers)
        value = _pick(values, numbers).replace(_COOKIE, server.cookie)
        headers = [one for one in headers if one[0] != name] + [(name, value)]
    query = _query(server, numbers)
    cut = bool(numbers.random() < 0.01)
    answer = await ask(server.app, method, path, query, headers, _parts(body, numbers), cut=cut)
    if cut and not answer["status"]:
        return "sender gone"
    _check(answer, role, method, route.path, cut)
    _remember(server, answer)
    return f"status {answer['status']}"


def _check(answer: dict[str, Any], role: str, method: str, path: str, cut: bool) -> None:
    status, headers = answer["status"], answer["headers"]
    told = f"{method} {path} by {role}: status {status}"
    assert 200 <= status < 500, f"{told}: {answer['body'][:300]!r}"
    assert len(answer["body"]) < LARGEST, f"{told}: {len(answer['body'])} bytes"
    assert b"default-src 'none'" in headers.get(b"content-security-policy", b""), f"{told}: no policy"
    whole = method != "HEAD" and status != 206 and not cut
    if whole and headers.get(b"content-type", b"").startswith(b"application/json"):
        assert _is_json(answer["body"]), f"{told}: {answer['body'][:300]!r} is no JSON"
    assert b"Traceback" not in answer["body"], told
    changing = path.startswith("/api/") and method not in ("GET", "HEAD", "OPTIONS")
    own = path.startswith("/api/session")
    if changing and not own and status < 300:
        assert role in ("owner", "annotator"), told
    if path.startswith("/api/") and not own and status < 300:
        assert role != "nobody", told
    if path in ("/api/invites", "/api/invites/{invite}", "/api/pay", "/api/gold", "/api/roots") and status < 300:
        assert role == "owner", told


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _remember(server: Served, answer: dict[str, Any]) -> None:
    if answer["status"] >= 300 or not answer["body"].startswith(b'{"task":{'):
        return
    task = json.loads(answer["body"])["task"]
    server.tasks = [*server.tasks[-5:], task["id"]]
    server.items = [*server.items[-20:], *(one["id"] for one in task["items"][:5])]


async def ask(
    app: Any,
    method: str,
    path: str,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    parts: list[bytes],
    *,
    cut: bool = False,
) -> dict[str, Any]:
    """Send one request to an application and return status, headers and body of the response.

    Parameters
    ----------
    cut
        Whether the sender is gone before the last part.
    """
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path, errors="replace").encode(),
        "root_path": "",
        "query_string": query,
        "headers": headers,
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if cut:
        waiting[-1:] = []
    else:
        waiting[-1]["more_body"] = False
    found: dict[str, Any] = {"status": 0, "headers": {}, "body": b""}
    body = bytearray()

    async def receive() -> dict[str, Any]:
        if not waiting and not cut:
            await asyncio.Event().wait()  # until the application no longer asks
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            found["status"], found["headers"] = message["status"], dict(message["headers"])
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return found | {"body": bytes(body)}


# --- what a request is made of ----------------------------------------------------------------------------------------


def _pick(values: Any, numbers: np.random.Generator) -> Any:
    return values[int(numbers.integers(0, len(values)))]


def _parts(body: bytes, numbers: np.random.Generator) -> list[bytes]:
    middle = int(numbers.integers(0, len(body) + 1))
    return [body[:middle], body[middle:]] if numbers.random() < 0.3 else [body]


def _text(numbers: np.random.Generator) -> str:
    return str(_pick(_TEXTS, numbers))


def _path(server: Served, template: str, numbers: np.random.Generator) -> str:
    values = {
        "dataset": "1",
        "image": str(numbers.integers(1, 4)),
        "task": _pick(server.tasks, numbers),
        "item": _pick(server.items, numbers),
        "node": str(numbers.integers(0, 400)),
        "path": "keys.js",
        "invite": "0" * 16,
    }
    path = template
    for name, good in values.items():
        value = good if numbers.random() < 0.8 else _text(numbers)
        path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
    return path + (_text(numbers) if numbers.random() < 0.03 else "")


def _query(server: Served, numbers: np.random.Generator) -> bytes:
    names = ("offset", "limit", "category", "text", "state", "side", "items", "sample", "token", _text(numbers)[:50])
    pairs = []
    for _ in range(int(numbers.integers(0, 4))):
        value = _pick(server.items, numbers) if numbers.random() < 0.2 else _text(numbers)
        pairs.append(f"{_pick(names, numbers)}={value if numbers.random() < 0.2 else quote(value)}")
    query = "&".join(pairs).encode("utf-8", "replace")
    query = damaged(query, numbers) if numbers.random() < 0.1 else query
    # A server lets nothing else through (RFC 9112, section 3.2; h11 refuses it).
    return bytes(byte for byte in query if 0x21 <= byte <= 0x7E)


def _body(server: Served, path: str, numbers: np.random.Generator) -> tuple[bytes, bytes]:
    """Return content type and content of a body that the route takes, or nearly so."""
    if path == "/api/datasets":
        return _upload(server, numbers)
    value = odd_value(_good_body(server, path, numbers), numbers) if numbers.random() < 0.6 else None
    data = json.dumps(value if value is not None else _good_body(server, path, numbers)).encode()
    if numbers.random() < 0.02:
        data = data.replace(b"1", b"1" + b"0" * 400, 1)
    if numbers.random() < 0.02:
        data = b'{"client": "c", "events": [' + b"[" * int(numbers.integers(1, 3000))
    return b"application/json", damaged(data, numbers) if numbers.random() < 0.15 else data


def _good_body(server: Served, path: str, numbers: np.random.Generator) -> dict[str, Any]:
    mask = np.zeros(_SIZE, bool)
    mask[3:9, 2 : int(numbers.integers(4, 30))] = True
    rle = masks.to_json(masks.encode(mask))
    number, item = int(numbers.integers(0, 1 << 40)), _pick(server.items, numbers)
    event = {"client_no": number, "dataset": 1, "image": int(numbers.integers(1, 4)), "seconds": 1.5, "tool": "brush"}
    event |= {"object": _pick(["1", "2", f"n{number}"], numbers), "undoes": None, "redoes_no": None}
    kind = _pick(["create", "edit", "delete", "restore", "rename"], numbers)
    payload = {"category": _text(numbers), "after": rle, "before": rle}
    if kind == "rename":
        payload = {"before": "cat", "after": _text(numbers)}
    answer = {"client_no": number, "item": item, "reply": _pick(["yes", "no", "other"], numbers), "reason": None}
    answer |= {"seconds": 1.4, "default_used": False, "layout": "grid", "after": rle, "before": rle}
    bodies: dict[str, dict[str, Any]] = {
        "/api/session": {"token": _text(numbers), "crowd": {"participant": "p", "study": "s"}},
        "/api/session/keys": {"yes": ["y", "1"], "no": [_text(numbers)[:49]]},
        "/api/session/name": {"name": _text(numbers)},
        "/api/events": {"client": "page", "events": [event | {"kind": kind, "payload": payload}]},
        "/api/invites": {"name": _text(numbers)[:99], "role": "annotator", "kind": "lab", "days": 7},
        "/api/tasks": {"kind": _pick(["questions", "edits", "redraws"], numbers), "layout": "grid", "items": [item]},
        "/api/gold": {"task": _pick(server.tasks, numbers), "item": item, "reply": "yes"},
        "/api/map/questions": {"items": [item], "name": _text(numbers)[:99]},
        "/api/datasets/{dataset}/images/{image}/state": {"state": "finished"},
        "/api/tasks/{task}/answers": {"client": "page", "answers": [answer]},
        "/api/tasks/{task}/submit": {"seconds": 30.5},
    }
    return bodies.get(path, {})


def _upload(server: Served, numbers: np.random.Generator) -> tuple[bytes, bytes]:
    mask = masks.to_json(masks.encode(np.ones(_SIZE, bool)))
    content: Any = {
        "info": {"description": _text(numbers)},
        "images": [
            {"id": 1, "file_name": "1.png", "width": _SIZE[1], "height": _SIZE[0]},
            {"id": 2, "file_name": "2.png"},
        ],
        "categories": [{"id": 1, "name": _text(numbers), "definition": "x"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": mask, "score": 0.5},
            {"image_id": 2, "category_id": 2, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        ],
    }
    data = json.dumps(odd_value(content, numbers)).encode()
    if numbers.random() < 0.3:
        data = damaged(data, numbers)
    fields = [b'name="name"\r\n\r\n' + _text(numbers).encode("utf-8", "replace")]
    fields.append(b'name="images"\r\n\r\n' + (server.root if numbers.random() < 0.9 else "/etc").encode())
    if numbers.random() < 0.9:
        fields.append(b'name="annotations"; filename="set.json"\r\n\r\n' + data)
    head = b"--edge\r\nContent-Disposition: form-data; "
    body = b"".join(head + field + b"\r\n" for field in fields) + b"--edge--\r\n"
    return b"multipart/form-data; boundary=edge", damaged(body, numbers) if numbers.random() < 0.2 else body


CASES = {"requests": request_cases}
