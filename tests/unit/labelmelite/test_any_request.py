"""Whatever JSON comes to whatever route from whomever: no answer of 500, and nobody does more than they may.

`benchmarks/fuzz.py` does more of this, with odd paths, headers and uploads.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route
from starlette.testclient import TestClient

from .conftest import Page

TEXT = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(
    ["1", "cat", "yes", "questions", "\ud800", "²"]
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**400, -1, 1 << 63]) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
NAMES = ("client", "events", "answers", "kind", "items", "layout", "seconds", "name", "role", "days", "state", "token")
BODY = st.dictionaries(st.sampled_from([*NAMES, "crowd", "task", "item", "reply"]), VALUE, max_size=6) | VALUE


@pytest.fixture
def pages(join: Callable[..., Page], client: TestClient) -> dict[str, Page]:
    return {role: join(role) for role in ("owner", "annotator", "reader")} | {"nobody": Page(client, {"csrf": ""})}


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_request_is_answered_below_500(client: TestClient, pages: dict[str, Page], data: st.DataObject) -> None:
    routes: list[Any] = [one for one in client.app.routes if isinstance(one, Route)]  # type: ignore[attr-defined]
    route = data.draw(st.sampled_from(routes))
    role = data.draw(st.sampled_from(sorted(pages)))
    method = data.draw(st.sampled_from(sorted(route.methods)))
    path = route.path
    for name in ("dataset", "image", "task", "item", "node", "invite", "path"):
        value = data.draw(st.sampled_from(["1", "2", "0", "x", "²", "-1", "9" * 30, "a" * 300]))
        path = path.replace(f"{{{name}:path}}", value).replace(f"{{{name}}}", value)
    if (method, path) == ("DELETE", "/api/session"):
        return
    content = json.dumps(data.draw(BODY), allow_nan=True) if method not in ("GET", "HEAD") else None
    headers = {**pages[role].headers, "Content-Type": "application/json"}
    response = client.request(method, path, content=content, headers=headers)
    client.cookies.clear()
    assert response.status_code < 500, (method, path, role, content, response.text[:300])
    if method not in ("GET", "HEAD") and response.status_code < 300 and not path.startswith("/api/session"):
        assert role in ("owner", "annotator")
