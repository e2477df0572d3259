import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from starlette.testclient import TestClient

from labelmelite import events
from labelmelite.exporting import Export
from labelmelite.importing import import_source
from labelmelite.routes.pages import PAGES
from labelmelite.sources.coco import CocoSource
from labelmelite.store import Store

from .conftest import Page, rectangle


def test_lists_what_there_is(page: Page) -> None:
    assert page.get("/api/datasets").json() == [
        {"id": 1, "name": "set", "kind": "coco", "images": 3, "objects": 3, "finished": 0}
    ]
    assert page.get("/api/datasets/1/categories").json() == [
        {"id": 3, "name": "cat", "definition": "A small animal.", "objects": 1},
        {"id": 7, "name": "dog", "definition": "", "objects": 2},
    ]
    found = page.get("/api/datasets/1/images").json()
    assert found["total"] == 3
    assert found["images"][0] == {
        "id": 1,
        "file_name": "a.png",
        "width": 32,
        "height": 24,
        "objects": 2,
        "state": "untouched",
    }


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("category=7", [1, 2]),
        ("category=3", [1]),
        ("category=99", []),
        ("text=b.j", [2]),
        ("text=%25", []),
        ("text=_", []),
        ("state=untouched", [1, 2, 3]),
        ("state=finished", []),
        ("offset=1&limit=1", [2]),
        ("category=7&text=a", [1]),
    ],
)
def test_images_are_filtered(page: Page, query: str, ids: list[int]) -> None:
    assert [one["id"] for one in page.get(f"/api/datasets/1/images?{query}").json()["images"]] == ids


def test_one_image_with_neighbours(page: Page) -> None:
    found = page.get("/api/datasets/1/images/2").json()
    assert (found["previous"], found["next"]) == (1, 3)
    (only,) = found["objects"]
    assert only == {
        "id": "5",
        "category_id": 7,
        "category": "dog",
        "mask": rectangle(0, 0, 32, 24),
        "score": None,
        "seq": None,
        "provenance": None,
    }
    assert page.object("2")["score"] == 0.5


def test_state_of_an_image(page: Page) -> None:
    assert page.put("/api/datasets/1/images/2/state", {"state": "finished"}).json() == {"state": "finished"}
    assert page.get("/api/datasets").json()[0]["finished"] == 1
    assert page.get("/api/datasets/1/images?state=finished").json()["total"] == 1
    assert page.put("/api/datasets/1/images/2/state", {"state": "done"}).status_code == 400


@pytest.mark.parametrize("path", ["/api/datasets/9/images", "/api/datasets/1/images/77", "/api/datasets/x/categories"])
def test_what_is_not_there(page: Page, path: str) -> None:
    response = page.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_pixels_as_they_are_and_scaled(page: Page, tmp_path: Path) -> None:
    plain = page.get("/api/datasets/1/images/1/pixels")
    assert plain.headers["content-type"] == "image/png"
    assert plain.content == (tmp_path / "images" / "a.png").read_bytes()
    small = page.get("/api/datasets/1/images/1/pixels?side=16")
    (tmp_path / "small.jpg").write_bytes(small.content)
    with Image.open(tmp_path / "small.jpg") as image:
        assert image.size == (16, 12)
    assert page.get("/api/datasets/1/images/1/pixels?side=x").status_code == 400


def test_a_browser_asks_whether_the_picture_that_it_has_is_still_right(
    page: Page, store: Store, tmp_path: Path
) -> None:
    def get(path: str, tag: str = "") -> Any:
        return page.client.get(path, headers={**page.headers, "If-None-Match": tag})

    path = "/api/datasets/1/images/1/pixels"
    first = get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    again = get(path, f'"other", W/{tag}')
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert get(f"{path}?side=16", tag).status_code == 200
    # The number stands for another file after the folder has changed.
    (tmp_path / "images" / "new.png").write_bytes((tmp_path / "images" / "a.png").read_bytes())
    store.write_now(lambda c: c.execute("UPDATE image SET file_name = 'new.png' WHERE id = 1").rowcount)
    other = get(path, tag)
    assert other.status_code == 200 and other.headers["etag"] != tag
    os.utime(tmp_path / "images" / "new.png", ns=(1, 1))
    assert get(path, other.headers["etag"]).status_code == 200


def test_an_image_that_fails_to_decode_is_told(page: Page, tmp_path: Path) -> None:
    (tmp_path / "images" / "a.png").write_bytes(b"no image at all")
    response = page.get("/api/datasets/1/images/1/pixels")
    assert response.status_code == 503
    assert "a.png cannot be read" in response.json()["error"]["message"]
    (tmp_path / "images" / "b.jpg").unlink()
    assert page.get("/api/datasets/1/images/2/pixels").status_code == 404
    # The rest of the page still works.
    assert page.get("/api/datasets/1/images/1").status_code == 200


def test_the_editor_is_told_of_all_events(page: Page) -> None:
    page.send(page.event("edit", {"before": rectangle(2, 3, 5, 6), "after": rectangle(2, 3, 5, 7)}))
    (event,) = page.get("/api/datasets/1/images/1/events").json()
    assert event["kind"] == "edit" and event["object"] == "1" and event["seq"] == 1
    assert event["payload"] == {"before": rectangle(2, 3, 5, 6), "after": rectangle(2, 3, 5, 7)}
    assert event["seconds"] == 1.5 and event["tool"] == "brush"


def test_export_opens_with_pycocotools_and_holds_what_was_drawn(page: Page, tmp_path: Path) -> None:
    page.send(
        page.event("create", {"category": "zebra", "after": rectangle(1, 1, 3, 3)}, "5f0e-new", image=3),
        page.event("delete", {"before": rectangle(2, 3, 5, 6)}),
    )
    response = page.get("/api/datasets/1/export")
    path = tmp_path / "out.json"
    path.write_bytes(response.content)
    found = COCO(str(path))
    assert sorted(found.anns) == [2, 5, 6]
    new = found.anns[6]
    assert (new["image_id"], new["area"], new["bbox"], new["object"]) == (12, 9, [1.0, 1.0, 3.0, 3.0], "5f0e-new")
    assert found.cats[new["category_id"]]["name"] == "zebra"
    assert found.anns[5]["iscrowd"] == 1 and found.anns[2]["score"] == 0.5
    assert json.loads(response.content)["info"] == {"description": "three pictures"}


def test_an_export_lists_every_category_and_keeps_every_id(store: Store, coco: Path) -> None:
    value = json.loads(coco.read_text())
    value["annotations"][0]["id"] = 0
    coco.write_text(json.dumps(value))
    import_source(store, CocoSource(coco, str(coco.parent / "images")))
    export = store.read_now(lambda c: Export(c, 1))
    parts = [store.read_now(export.head)]
    made = {"client_no": 1, "kind": "create", "dataset": 1, "image": 2, "object": "007"}
    event = events.parse(made | {"payload": {"category": "made meanwhile", "after": rectangle(2, 2, 3, 3)}}, "c")
    store.write_now(lambda c: events.accept(c, "p", 0.0, event))
    for images in export.pieces():
        parts.append(", ".join(store.read_now(lambda c, images=images: export.annotations(c, images))))
    found = json.loads("".join([*parts, store.read_now(export.tail)]))
    assert found["categories"] == [
        {"id": 3, "name": "cat", "definition": "A small animal."},
        {"id": 7, "name": "dog"},
        {"id": 8, "name": "made meanwhile"},
    ]
    assert [(one["id"], one["category_id"], one.get("object")) for one in found["annotations"]] == [
        (0, 3, None),
        (2, 7, None),
        (5, 7, None),
        (6, 8, "007"),
    ]


def test_the_owner_imports_a_set_and_a_folder(join: Callable[..., Page], coco: Path) -> None:
    owner = join("owner")
    (root,) = owner.get("/api/roots").json()
    value = json.loads(coco.read_text())
    value["annotations"].append({"id": 9, "image_id": 10, "category_id": 3, "segmentation": {"size": [1, 1]}})
    form = {"name": "second <b>set</b>", "images": root}
    files = {"annotations": ("x.json", json.dumps(value).encode())}
    response = owner.client.post("/api/datasets", data=form, files=files, headers=owner.headers)
    assert response.status_code == 201, response.text
    assert response.json()["id"] == 2
    assert response.json()["skipped"] == [
        {"record": "annotation 9", "reason": "is no run-length mask: it needs size and counts"}
    ]
    again = owner.client.post("/api/datasets", data=form, files=files, headers=owner.headers)
    assert again.json()["id"] == 2
    folder = owner.client.post(
        "/api/datasets", data={"name": "folder", "images": root}, files={"x": b""}, headers=owner.headers
    )
    assert folder.status_code == 201, folder.text
    assert [one["images"] for one in owner.get("/api/datasets").json()] == [3, 3, 3]
    # The size of an image of a folder is found when it is opened.
    first = owner.get("/api/datasets/3/images").json()["images"][0]
    assert first["width"] is None
    assert owner.get(f"/api/datasets/3/images/{first['id']}").json()["width"] == 32


@pytest.mark.parametrize(
    ("form", "content", "status"),
    [
        ({"name": "x", "images": "/etc"}, b"{}", 403),
        ({"name": "", "images": None}, b"{}", 400),
        ({"name": "x", "images": None}, b"[1, 2", 400),
        ({"name": "x", "images": None}, b"[" * 100_000, 400),
        ({"name": "x", "images": None}, b'{"images": 3}', 400),
    ],
)
def test_what_cannot_be_imported(
    join: Callable[..., Page], form: dict[str, str | None], content: bytes, status: int
) -> None:
    owner = join("owner")
    filled = {key: owner.get("/api/roots").json()[0] if value is None else value for key, value in form.items()}
    response = owner.client.post(
        "/api/datasets", data=filled, files={"annotations": ("x.json", content)}, headers=owner.headers
    )
    assert response.status_code == status, response.text
    assert len(owner.get("/api/datasets").json()) == 1


def test_keys_and_name_are_kept(join: Callable[..., Page]) -> None:
    page = join("annotator", "Ada")
    assert page.get("/api/session").json()["annotator"]["name"] == "Ada"
    assert page.put("/api/session/keys", {"undo": ["z", "ctrl+z"]}).status_code == 200
    assert page.put("/api/session/name", {"name": "Ada  Lovelace"}).status_code == 200
    found = page.get("/api/session").json()
    assert found["keys"] == {"undo": ["z", "ctrl+z"]}
    assert found["annotator"]["name"] == "Ada Lovelace"
    assert page.put("/api/session/keys", {"undo": "z"}).status_code == 400
    assert page.put("/api/session/name", {"name": "x" * 101}).status_code == 400


def test_a_reader_changes_nothing(join: Callable[..., Page]) -> None:
    reader = join("reader")
    assert reader.get("/api/datasets/1/images/1").status_code == 200
    response = reader.post("/api/events", {"client": "c", "events": []})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "forbidden"
    assert reader.put("/api/datasets/1/images/1/state", {"state": "finished"}).status_code == 403


@pytest.mark.parametrize("path", ["/api/roots", "/api/invites", "/api/pay"])
def test_what_is_for_the_owner_alone(page: Page, path: str) -> None:
    assert page.get(path).status_code == 403


def test_pages_and_scripts_are_served(client: TestClient) -> None:
    for path in PAGES:
        response = client.get(path.replace("{dataset}", "1").replace("{image}", "1"))
        assert response.status_code == 200, path
        assert response.headers["content-type"].startswith("text/html")
        assert "<script>" not in response.text and "style=" not in response.text
    assert client.get("/static/keys.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/static/nothing.js").status_code == 404


def test_photographs_are_turned_upright(page: Page, tmp_path: Path) -> None:
    turned = Image.fromarray(np.zeros((24, 32, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images" / "b.jpg", exif=exif)
    response = page.get("/api/datasets/1/images/2/pixels")
    (tmp_path / "out.jpg").write_bytes(response.content)
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.size == (24, 32)
        assert image.getexif().get(0x0112, 1) == 1
