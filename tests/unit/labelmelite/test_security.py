import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from labelmelite import security
from labelmelite.app import create_app
from labelmelite.settings import Settings
from labelmelite.store import FILE, Store

from .conftest import Page, rectangle

JSON = {"content-type": "application/json"}


def test_nobody_is_signed_in_without_a_token(client: TestClient) -> None:
    for path in ("/api/session", "/api/datasets", "/api/datasets/1/images/1/pixels", "/api/datasets/1/export"):
        response = client.get(path)
        assert response.status_code == 401 and response.json()["error"]["code"] == "sign_in"
    assert client.post("/api/events", json={"client": "c", "events": []}).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 5000, "é"])
def test_forged_tokens(client: TestClient, token: str) -> None:
    response = client.post("/api/session", content=json.dumps({"token": token}), headers=JSON)
    assert response.status_code == 401
    if token.isascii() and token:
        assert client.get("/api/session", headers={"Authorization": f"Bearer {token}"}).status_code == 401
        name = client.app.state.guard.cookie  # type: ignore[attr-defined]
        assert client.get("/api/session", headers={"Cookie": f"{name}={token}"}).status_code == 401


def test_a_link_works_once(client: TestClient, store: Store) -> None:
    token = store.write_now(client.app.state.guard.invite_owner)  # type: ignore[attr-defined]
    response = client.post("/api/session", json={"token": token})
    assert response.status_code == 200
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    again = client.post("/api/session", json={"token": token})
    assert again.status_code == 410 and again.json()["error"]["code"] == "gone"
    # The cookie alone is enough to look.
    assert client.get("/api/session").json()["annotator"]["role"] == "owner"


def test_who_is_signed_in_opens_another_link(client: TestClient, store: Store) -> None:
    guard = client.app.state.guard  # type: ignore[attr-defined]
    for name in ("Ada", "Ben"):
        token = store.write_now(lambda c, name=name: guard.invite(c, name, "annotator", 1)["token"])
        response = client.post("/api/session", json={"token": token}, headers={"Origin": "http://127.0.0.1"})
        assert response.status_code == 200, response.text
        assert client.get("/api/session").json()["annotator"]["name"] == name
    # All other changes need the header that such a page cannot have, and no other site may do this one.
    assert client.delete("/api/session").status_code == 409
    token = store.write_now(guard.invite_owner)
    for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/api/session", json={"token": token}, headers=foreign).status_code == 403
    content, plain = json.dumps({"token": token}), {"content-type": "text/plain"}
    assert client.post("/api/session", content=content, headers=plain).status_code == 400


def test_a_page_of_an_earlier_session_is_told_apart_from_a_foreign_one(client: TestClient, store: Store) -> None:
    guard = client.app.state.guard  # type: ignore[attr-defined]
    body, old = {"client": "c", "events": []}, ""
    for expected in (200, 409):
        token = store.write_now(guard.invite_owner)
        session = client.post("/api/session", json={"token": token}).json()
        old = old or session["csrf"]
        response = client.post("/api/events", json=body, headers={"X-Labelmelite": old})
        assert response.status_code == expected
    assert response.json()["error"]["code"] == "stale"
    assert client.post("/api/events", json=body, headers={"X-Labelmelite": session["csrf"]}).status_code == 200


def test_servers_on_one_machine_have_cookies_of_their_own(client: TestClient, tmp_path: Path, store: Store) -> None:
    guard = client.app.state.guard  # type: ignore[attr-defined]
    client.post("/api/session", json={"token": store.write_now(guard.invite_owner)})
    other_store = Store(tmp_path / "other")
    try:
        other_app = create_app(Settings(data=tmp_path / "other"), other_store)
        with TestClient(other_app, base_url="http://127.0.0.1", cookies=client.cookies) as other:
            # One browser: what one server sets is sent to the other, whatever their ports.
            other.post("/api/session", json={"token": other_store.write_now(other_app.state.guard.invite_owner)})
            client.cookies.update(other.cookies)
            assert other.get("/api/session").status_code == client.get("/api/session").status_code == 200
    finally:
        other_store.close()


class Later:
    """The server's clock, moved on by hand."""

    def __init__(self, store: Store) -> None:
        self.seconds, self.now_before = 0.0, store.clock.now
        store.clock.now = lambda: self.now_before() + self.seconds  # type: ignore[method-assign]


def test_links_and_sessions_end(join: Callable[..., Page], client: TestClient, store: Store) -> None:
    later = Later(store)
    guard = client.app.state.guard  # type: ignore[attr-defined]
    page = join("annotator")
    token = store.write_now(lambda c: guard.invite(c, "x", "annotator", 1)["token"])
    later.seconds = 1.1 * security.DAY
    assert client.post("/api/session", json={"token": token}).status_code == 410
    assert page.get("/api/session").status_code == 200
    later.seconds = 31 * security.DAY
    guard._known.clear()
    assert page.get("/api/session").status_code == 401


def test_a_revoked_link_ends_its_sessions(join: Callable[..., Page]) -> None:
    owner = join("owner")
    made = owner.post("/api/invites", {"name": "Bob", "role": "annotator", "days": 2}).json()
    assert made["link"] == f"http://127.0.0.1/join#{made['token']}"
    session = owner.client.post("/api/session", json={"token": made["token"]}).json()
    owner.client.cookies.clear()
    bob = Page(owner.client, session)
    assert bob.get("/api/datasets").status_code == 200
    (listed,) = [one for one in owner.get("/api/invites").json()["invites"] if one["id"] == made["id"]]
    assert listed["annotator"] == session["annotator"]["id"] and "token" not in listed and "hash" not in listed
    assert owner.delete(f"/api/invites/{made['id']}").status_code == 200
    assert bob.get("/api/datasets").status_code == 401
    assert owner.delete(f"/api/invites/{made['id']}").status_code == 404


def test_signing_out(page: Page) -> None:
    assert page.delete("/api/session").status_code == 200
    assert page.get("/api/session").status_code == 401


def test_tokens_are_not_in_the_database(join: Callable[..., Page], store: Store) -> None:
    owner = join("owner")
    made = owner.post("/api/invites", {"role": "reader"}).json()
    store.write_now(lambda c: c.execute("SELECT 1").fetchone())
    for path in store.folder.glob(f"{FILE}*"):
        content = path.read_bytes()
        assert made["token"].encode() not in content
        assert owner.session["session"].encode() not in content


def test_a_change_needs_the_header_and_its_own_origin(page: Page) -> None:
    body = {"client": "c", "events": []}
    good = page.headers
    send = page.client.post
    assert send("/api/events", json=body, headers=good).status_code == 200
    assert send("/api/events", json=body, headers={**good, "X-Labelmelite": "wrong"}).status_code == 409
    assert send("/api/events", json=body, headers={"Authorization": good["Authorization"]}).status_code == 409
    for foreign in ("https://evil.example", "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:99"):
        assert send("/api/events", json=body, headers={**good, "Origin": foreign}).status_code == 403
    for site in ("cross-site", "same-site"):
        assert send("/api/events", json=body, headers={**good, "Sec-Fetch-Site": site}).status_code == 403
    own = {**good, "Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert send("/api/events", json=body, headers=own).status_code == 200


def test_a_form_of_another_site_cannot_sign_somebody_in(client: TestClient) -> None:
    response = client.post("/api/session", json={"token": "x"}, headers={"Origin": "https://evil.example"})
    assert response.status_code == 403
    assert (
        client.post("/api/session", content='{"token": "x"}', headers={"content-type": "text/plain"}).status_code == 400
    )


def test_a_foreign_name_of_the_server_is_refused(client: TestClient, settings: Settings, store: Store) -> None:
    response = client.get("/", headers={"Host": "rebound.evil.example"})
    assert response.status_code == 403 and "rebound.evil.example" in response.json()["error"]["message"]
    for name in ("localhost:8080", "127.0.0.1:1", "[::1]:5"):
        assert client.get("/", headers={"Host": name}).status_code == 200
    public = create_app(replace(settings, public="https://label.example.org"), store)
    with TestClient(public, base_url="https://label.example.org") as other:
        assert other.get("/").status_code == 200


def test_names_of_machines_are_the_same_in_capital_letters(settings: Settings, store: Store) -> None:
    body = {"token": "x"}
    for changed in ({"host": "Login1"}, {"public": "https://Label.Example.org"}):
        name = next(iter(changed.values())).removeprefix("https://")
        app = create_app(replace(settings, **changed), store)  # type: ignore[arg-type]
        with TestClient(app, base_url=f"https://{name.lower()}") as client:
            for shown in (name, name.lower()):
                headers = {"Host": shown, "Origin": f"https://{name.lower()}"}
                assert client.get("/", headers=headers).status_code == 200
                assert client.post("/api/session", json=body, headers=headers).status_code == 401


def test_headers_of_every_response(client: TestClient) -> None:
    for path in ("/", "/api/session", "/static/keys.js", "/nothing/at/all"):
        found = client.get(path).headers
        policy = found["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "object-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert not re.search(r"https?:", policy)
        assert found["x-frame-options"] == "DENY" and found["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in found
        assert "server" not in found


def test_frames_are_allowed_for_mturk_alone(settings: Settings) -> None:
    found = security.headers(replace(settings, adapter="mturk"))
    policy = found["Content-Security-Policy"]
    assert "frame-ancestors https://www.mturk.com https://workersandbox.mturk.com" in policy
    assert "form-action 'self' https://www.mturk.com" in policy
    assert "X-Frame-Options" not in found


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/pages/../../app.py",
        "/static/.hidden",
        "/static/a%00b",
        f"/static/{'9' * 400}",
        "/api/datasets/..%2f1/images",
        "/api/datasets/1/images/1%2f..%2f2/pixels",
        "/api/datasets/-1/images",
        "/api/datasets/99999999999999999999/images",
        "/api/datasets/１/images",
    ],
)
def test_paths_lead_nowhere_else(page: Page, path: str) -> None:
    response = page.get(path)
    assert response.status_code == 404
    assert "def create_app" not in response.text and "root:" not in response.text


def test_oversized_and_malformed_json(page: Page) -> None:
    def send(content: bytes, **headers: str) -> tuple[int, str]:
        response = page.client.post("/api/events", content=content, headers={**page.headers, **JSON, **headers})
        return response.status_code, response.json()["error"]["code"]

    assert send(b"{" * 10) == (400, "bad_request")
    assert send(b"[]") == (400, "bad_request")
    assert send(b"[" * 200_000) == (400, "bad_request")
    assert send(b"\xff\xfe") == (400, "bad_request")
    assert send(b'{"client": NaN, "events": []}') == (400, "bad_request")
    assert send(b'{"client": "c", "events": ' + b"9" * 5000 + b"}") == (400, "bad_request")
    assert send(b'{"client": "c"}') == (400, "bad_request")
    assert send(b'{"client": "c", "events": [' + b"1," * 600 + b"1]}") == (413, "too_large")
    assert send(b" " * ((16 << 20) + 1)) == (413, "too_large")

    def in_parts() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * (1 << 20)

    response = page.client.post("/api/events", content=in_parts(), headers={**page.headers, **JSON})
    assert response.status_code == 413


def test_without_tokens_everybody_is_the_owner_of_a_local_server(settings: Settings, store: Store) -> None:
    with TestClient(create_app(replace(settings, tokens=False), store), base_url="http://127.0.0.1") as open_one:
        session = open_one.get("/api/session").json()
        assert session["annotator"]["role"] == "owner"
        # A page of another site still cannot change anything: it lacks the header.
        assert open_one.post("/api/events", json={"client": "c", "events": []}).status_code == 409
        assert Page(open_one, session).post("/api/events", {"client": "c", "events": []}).status_code == 200


def test_names_stand_in_one_table_apart(join: Callable[..., Page], store: Store) -> None:
    page = join("annotator", "Grace Hopper")
    page.name = "a client"
    page.send(page.event("edit", {"before": rectangle(2, 3, 5, 6), "after": rectangle(2, 3, 5, 7)}))
    tables = store.read_now(lambda c: [r[0] for r in c.execute("SELECT name FROM sqlite_master WHERE type = 'table'")])
    holding = [
        table
        for table in tables
        if any(
            "Grace Hopper" in map(str, tuple(row))
            for row in store.read_now(lambda c, t=table: list(c.execute(f"SELECT * FROM {t}")))
        )
    ]
    assert holding == ["name"]


def test_a_page_of_the_project_has_no_inline_script(repository: Path) -> None:
    pages = sorted((repository / "scripts" / "labelmelite" / "static").glob("*.html"))
    assert pages
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", text), path.name


HALF = "\ud800"
HUGE = 10**400


@pytest.mark.parametrize(
    ("method", "path", "value"),
    [
        ("POST", "/api/session", {"token": HALF}),
        ("PUT", "/api/session/name", {"name": HALF}),
        ("POST", "/api/invites", {"name": HALF}),
        ("POST", "/api/invites", {"name": "x", "days": HUGE}),
        ("POST", "/api/events", {"client": HALF, "events": []}),
        ("POST", "/api/tasks", {"kind": "questions", "layout": HALF}),
        ("POST", "/api/tasks/x/answers", {"client": HALF, "answers": []}),
        ("POST", "/api/tasks/x/submit", {"seconds": HUGE}),
        ("PUT", "/api/gold", {"task": HALF, "item": "x", "reply": "yes"}),
    ],
)
def test_half_characters_and_endless_numbers_are_refused(
    join: Callable[..., Page], method: str, path: str, value: object
) -> None:
    page = join("owner")
    response = page.client.request(method, path, content=json.dumps(value), headers={**page.headers, **JSON})
    assert response.status_code in (400, 404) and response.json()["error"]["message"]


def test_an_event_with_numbers_beyond_all_files_is_refused_by_itself(page: Page) -> None:
    sound = page.event("edit", {"before": rectangle(2, 3, 5, 6), "after": rectangle(2, 3, 5, 7)})
    for odd in ({"seconds": HUGE}, {"client_no": HALF}, {"client_no": HUGE}, {"dataset": 1 << 70}, {"tool": HALF}):
        refused, saved = page.send({**sound, "client_no": 900, **odd}, {**sound, "client_no": page.number})
        assert refused["error"]["code"] == "bad_request" and "seq" in saved
    for odd in (b"1e999", b"-1e999", b"Infinity"):
        content = b'{"client": "c", "events": [{"client_no": ' + odd + b"}]}"
        answer = page.client.post("/api/events", content=content, headers={**page.headers, **JSON})
        assert answer.status_code == 400
    # What lies too deep to be written again is not repeated in the acknowledgement.
    deep = b'{"client": "c", "events": [{"client_no": ' + b"[" * 900 + b"]" * 900 + b"}]}"
    answer = page.client.post("/api/events", content=deep, headers={**page.headers, **JSON})
    assert answer.status_code in (200, 400)


def test_keys_with_half_a_character_come_back_as_they_were(page: Page) -> None:
    content, headers = json.dumps({"yes": [HALF]}), {**page.headers, **JSON}
    assert page.client.put("/api/session/keys", content=content, headers=headers).status_code == 200
    assert page.get("/api/session").json()["keys"] == {"yes": [HALF]}


@pytest.mark.parametrize("text", ["²", "１", "--5", "5-", "1e3", "９"])
def test_numbers_of_a_query_are_ascii_digits(page: Page, text: str) -> None:
    response = page.get("/api/datasets/1/images", params={"offset": text})
    assert response.status_code == 400 and response.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize("length", [b"\xb2", b"-1", b"9" * 30, b"x"])
def test_a_length_that_is_none_is_no_error_of_the_server(join: Callable[..., Page], length: bytes) -> None:
    page = join("owner")
    headers = [(name.encode(), value.encode()) for name, value in {**page.headers, **JSON}.items()]
    headers.append((b"content-length", length))
    for path in ("/api/events", "/api/datasets"):
        assert 400 <= page.client.post(path, content=b"{}", headers=headers).status_code < 500


@pytest.mark.parametrize("name", ["[", "[::1", "127.0.0.1]:x["])
def test_hosts_and_origins_that_are_none_are_refused(page: Page, name: str) -> None:
    assert page.client.get("/", headers={"Host": name}).status_code == 403
    headers = {**page.headers, "Origin": f"http://{name}"}
    assert page.client.post("/api/events", json={"client": "c", "events": []}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("path", "kind"), [("/api/events", "application/json"), ("/api/datasets", "multipart/form-data")]
)
def test_a_sender_who_is_gone_in_the_middle_is_no_error_of_the_server(
    join: Callable[..., Page], path: str, kind: str
) -> None:
    page = join("owner")
    kinds = {"host": "127.0.0.1", "content-type": f"{kind}; boundary=edge", "content-length": "900"}
    headers = [(name.lower().encode(), value.encode()) for name, value in (kinds | page.headers).items()]
    body = b'--edge\r\nContent-Disposition: form-data; name="name"\r\n\r\nx'
    waiting = [{"type": "http.request", "body": body, "more_body": True}]
    sent: list[int] = []

    async def receive() -> dict[str, object]:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, int]) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "scheme": "http"}
    asyncio.run(page.client.app(scope | {"http_version": "1.1", "server": ("127.0.0.1", 80)}, receive, send))  # type: ignore[arg-type]
    assert sent == [400]
