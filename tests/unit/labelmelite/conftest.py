import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from labelmelite.app import create_app
from labelmelite.images import as_root
from labelmelite.importing import import_source
from labelmelite.settings import Settings
from labelmelite.sources.coco import CocoSource
from labelmelite.store import Store
from segloop.data import masks

SIZE = (24, 32)
"""Height and width of the images."""


def rectangle(x: int, y: int, width: int, height: int, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Return a mask as JSON holds it."""
    mask = np.zeros(size, bool)
    mask[y : y + height, x : x + width] = True
    return masks.to_json(masks.encode(mask))


class Page:
    """What a page of somebody is to the server: a session, and events counted by a client."""

    def __init__(self, client: TestClient, session: dict[str, Any], name: str = "page") -> None:
        self.client, self.session, self.name, self.number = client, session, name, 0

    @property
    def headers(self) -> dict[str, str]:
        bearer = {"Authorization": f"Bearer {self.session['session']}"} if "session" in self.session else {}
        return {"X-Labelmelite": self.session["csrf"], **bearer}

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, headers=self.headers, **options)

    def post(self, path: str, value: Any) -> Any:
        # Escaped, so that text that is no Unicode comes through as pages may send it.
        headers = {**self.headers, "Content-Type": "application/json"}
        return self.client.post(path, content=json.dumps(value), headers=headers)

    def put(self, path: str, value: Any) -> Any:
        return self.client.put(path, json=value, headers=self.headers)

    def delete(self, path: str) -> Any:
        return self.client.delete(path, headers=self.headers)

    def event(self, kind: str, payload: dict[str, Any], name: str = "1", **more: Any) -> dict[str, Any]:
        self.number += 1
        head = {"client_no": self.number, "dataset": 1, "image": 1, "object": name, "kind": kind, "payload": payload}
        return head | {"seconds": 1.5, "tool": "brush"} | more

    def send(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        response = self.post("/api/events", {"client": self.name, "events": list(events)})
        assert response.status_code == 200, response.text
        acks: list[dict[str, Any]] = response.json()["acks"]
        return acks

    def object(self, name: str = "1", image: int = 1) -> dict[str, Any] | None:
        objects = self.get(f"/api/datasets/1/images/{image}").json()["objects"]
        return next((one for one in objects if one["id"] == name), None)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A COCO file beside a folder `images` with three pictures."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    names = ["a.png", "b.jpg", "sub/c d.png"]
    for place, name in enumerate(names):
        pixels = np.full((*SIZE, 3), 40 * (place + 1), np.uint8)
        pixels[:, : SIZE[1] // 2, 0] = 255
        Image.fromarray(pixels).save(folder / name)
    value = {
        "info": {"description": "three pictures"},
        "images": [
            {"id": 10 + place, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for place, name in enumerate(names)
        ],
        "categories": [{"id": 3, "name": "cat", "definition": "A small animal."}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "segmentation": rectangle(2, 3, 5, 6), "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 7, "segmentation": [[10, 10, 20, 10, 20, 20]], "score": 0.5},
            {"id": 5, "image_id": 11, "category_id": 7, "segmentation": rectangle(0, 0, 32, 24), "iscrowd": 1},
        ],
    }
    path = tmp_path / "set.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", roots=(as_root(str(tmp_path / "images")),))


@pytest.fixture
def client(coco: Path, store: Store, settings: Settings) -> Iterator[TestClient]:
    """A browser at a server with the COCO set; nobody is signed in."""
    import_source(store, CocoSource(coco, settings.roots[0]))
    with TestClient(create_app(settings, store), base_url="http://127.0.0.1") as opened:
        yield opened


@pytest.fixture
def join(client: TestClient, store: Store) -> Callable[..., Page]:
    """Return a function that signs somebody in and gives their page."""

    def make(role: str = "owner", name: str = "") -> Page:
        guard = client.app.state.guard  # type: ignore[attr-defined]
        if role == "owner":
            token = store.write_now(guard.invite_owner)
        else:
            token = store.write_now(lambda c: guard.invite(c, name or role, role, 1)["token"])
        response = client.post("/api/session", json={"token": token})
        assert response.status_code == 200, response.text
        client.cookies.clear()
        return Page(client, response.json(), name or role)

    return make


@pytest.fixture
def page(join: Callable[..., Page]) -> Page:
    return join("annotator")
