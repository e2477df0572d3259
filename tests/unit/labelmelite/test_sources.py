import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from labelmelite import datasets
from labelmelite.events import Event, accept
from labelmelite.importing import import_source
from labelmelite.sources.base import Category, Image, ListSource, Object
from labelmelite.sources.coco import CocoSource, printable, whole
from labelmelite.sources.folder import folder_source
from labelmelite.store import Store
from segloop.data import masks
from segloop.errors import SegloopError

from .conftest import rectangle


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def read(path: Path, root: str = "/none") -> tuple[CocoSource, list[Category], list[Image], list[Object]]:
    source = CocoSource(path, root)
    return source, list(source.categories()), list(source.images()), list(source.objects())


def test_bad_records_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    good = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": rectangle(0, 0, 4, 4)}
    value = {
        "categories": [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"name": "x"}, 5],
        "images": [
            {"id": 1, "file_name": "a.png", "width": 32, "height": 24},
            {"id": 2, "file_name": "../a.png", "width": 32, "height": 24},
            {"id": 1, "file_name": "b.png"},
            {"id": "3", "file_name": "c.png"},
        ],
        "annotations": [
            good,
            good,
            good | {"id": 2, "image_id": 2},
            good | {"id": 3, "category_id": 9},
            good | {"id": 4, "segmentation": [[0, 0, 1, 1]]},
            good | {"id": 5, "segmentation": None},
            good | {"id": 6, "image_id": 3, "segmentation": [[0, 0, 9, 0, 9, 9]]},
            good | {"id": 7, "segmentation": rectangle(0, 0, 0, 0)},
            good | {"id": 8.0, "score": float("inf")},
            7,
        ],
    }
    source, categories, images, objects = read(write(tmp_path / "x.json", value))
    assert [(one.number, one.name) for one in categories] == [(1, "cat"), (2, "cat (2)")]
    assert [(one.number, one.width) for one in images] == [(1, 32), (3, None)]
    assert [one.id for one in objects] == ["1", "8"]
    assert {one["record"] for one in source.skipped} == {
        *("category 1", "categories[3]", "categories[4]", "image 2", "image 1"),
        *("annotation 1", "annotation 2", "annotation 3", "annotation 4", "annotation 5", "annotation 6"),
        *("annotation 7", "annotations[9]"),
    }


def test_a_size_comes_from_a_mask_or_from_the_image(tmp_path: Path) -> None:
    Picture.fromarray(np.zeros((5, 9, 3), np.uint8)).save(tmp_path / "b.png")
    value = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": rectangle(0, 0, 4, 4)},
            {"id": 2, "image_id": 2, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]},
        ],
        "categories": [{"id": 1, "name": "x"}],
    }
    _, _, images, objects = read(write(tmp_path / "x.json", value), str(tmp_path))
    assert [(one.width, one.height) for one in images] == [(32, 24), (9, 5)]
    assert len(objects) == 2


@pytest.mark.parametrize("value", [[], {}, {"images": []}, {"images": {}, "annotations": []}])
def test_what_is_no_data_set(tmp_path: Path, value: Any) -> None:
    with pytest.raises(SegloopError, match=r"x\.json is no COCO data set"):
        CocoSource(write(tmp_path / "x.json", value), "/none")


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "sub/c.webp", ".hidden.png", "notes.txt", "bad\nname.png"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).touch()
    source = folder_source(tmp_path / "f")
    assert [one.file_name for one in source.images()] == ["a.jpg", "b.PNG", "sub/c.webp"]
    assert source.skipped == [
        {"record": r"'bad\nname.png'", "reason": "the file name cannot be shown; rename the file"}
    ]
    for path in (tmp_path / "nowhere", tmp_path / "f" / "notes.txt"):
        with pytest.raises(SegloopError, match="is no folder"):
            folder_source(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegloopError, match="holds no images"):
        folder_source(tmp_path / "empty")


def test_a_set_is_read_once(store: Store, coco: Path) -> None:
    root = str(coco.parent / "images")
    first = import_source(store, CocoSource(coco, root))
    assert import_source(store, CocoSource(coco, root)) == first
    assert import_source(store, CocoSource(coco, "https://example.org/other/")).dataset != first.dataset


def touch(store: Store, dataset: int) -> None:
    image = store.read_now(lambda c: c.execute("SELECT id FROM image WHERE dataset = ?", (dataset,)).fetchone()[0])
    payload = {"category": "new", "after": rectangle(0, 0, 2, 2)}
    store.write_now(lambda c: c.execute("UPDATE image SET width = 32, height = 24 WHERE id = ?", (image,)).rowcount)
    event = Event("c", 1, "create", payload, dataset=dataset, image=image, object="x")
    store.write_now(lambda c: accept(c, "a", 0.0, event))


def objects(store: Store) -> int:
    found: int = store.read_now(datasets.listed)[0]["objects"]
    return found


def test_a_changed_file_is_read_again_until_people_have_worked_on_it(store: Store, coco: Path) -> None:
    root = str(coco.parent / "images")
    value = json.loads(coco.read_text())
    import_source(store, CocoSource(coco, root))
    assert objects(store) == 3
    value["annotations"].pop()
    again = import_source(store, CocoSource(write(coco, value), root))
    assert not again.changed and objects(store) == 2
    touch(store, again.dataset)
    value["annotations"].pop()
    kept = import_source(store, CocoSource(write(coco, value), root))
    assert kept.changed and kept.dataset == again.dataset and objects(store) == 3


def test_new_images_of_a_folder_are_added(store: Store, coco: Path) -> None:
    folder = coco.parent / "images"
    first = import_source(store, folder_source(folder))
    touch(store, first.dataset)
    Picture.fromarray(np.zeros((5, 9, 3), np.uint8)).save(folder / "0.png")
    assert import_source(store, folder_source(folder)) == first
    names = store.read_now(lambda c: [row[0] for row in c.execute("SELECT file_name FROM image ORDER BY id")])
    assert names == ["a.png", "b.jpg", "sub/c d.png", "0.png"]
    assert import_source(store, folder_source(folder)) == first


def finish(store: Store, dataset: int) -> None:
    image = store.read_now(lambda c: c.execute("SELECT id FROM image WHERE dataset = ?", (dataset,)).fetchone()[0])
    store.write_now(lambda c: datasets.set_state(c, dataset, image, "finished"))


def states(store: Store) -> list[tuple[str, str]]:
    sql = "SELECT file_name, state FROM image ORDER BY id"
    return store.read_now(lambda c: [tuple(row) for row in c.execute(sql)])


def test_an_image_that_somebody_called_finished_stays_so(store: Store, coco: Path) -> None:
    folder = coco.parent / "images"
    first = import_source(store, folder_source(folder))
    finish(store, first.dataset)
    Picture.fromarray(np.zeros((5, 9, 3), np.uint8)).save(folder / "0.png")
    assert import_source(store, folder_source(folder)) == first
    found = [("a.png", "finished"), *((name, "untouched") for name in ("b.jpg", "sub/c d.png", "0.png"))]
    assert states(store) == found
    value = json.loads(coco.read_text())
    read_in = import_source(store, CocoSource(coco, str(folder)))
    finish(store, read_in.dataset)
    value["annotations"].pop()
    kept = import_source(store, CocoSource(write(coco, value), str(folder)))
    assert kept.changed and kept.dataset == read_in.dataset
    assert states(store)[4] == ("a.png", "finished")


def test_two_imports_of_one_source_follow_each_other(store: Store) -> None:
    begun = threading.Event()

    class Slow(ListSource):
        def objects(self) -> Any:
            begun.set()
            time.sleep(0.3)
            yield from self.object_list

    mask = masks.check(rectangle(0, 0, 4, 4))
    parts = ([Category(1, "c")], [Image(1, "a.png", 32, 24)], [Object("1", 1, 1, mask)])
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(import_source, store, Slow("set", "loop", "key", "print", "/root", *parts))
        assert begun.wait(20)
        second = pool.submit(import_source, store, ListSource("set", "loop", "key", "print", "/root", *parts))
        assert first.result(20) == second.result(20)
    assert objects(store) == 1


def test_what_was_left_half_way_is_read_again(store: Store) -> None:
    mask = masks.check(rectangle(0, 0, 4, 4))
    many = [Object(str(n), 1, 1, mask) for n in range(2500)]

    class Killed(ListSource):
        def objects(self) -> Any:
            yield from many[:1500]
            raise KeyboardInterrupt

    def made(kind: type[ListSource]) -> ListSource:
        parts = ([Category(1, "c")], [Image(1, "a.png", 32, 24)], many)
        return kind("set", "loop", "key", "print", "/root", *parts, [], {})

    with pytest.raises(KeyboardInterrupt):
        import_source(store, made(Killed))
    assert store.read_now(datasets.listed) == []
    result = import_source(store, made(ListSource))
    assert store.read_now(datasets.listed)[0]["objects"] == 2500
    assert store.read_now(lambda c: c.execute("SELECT count(*) FROM dataset").fetchone()[0]) == 1
    assert result.dataset


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), ("7", 7), (" -3 ", -3), (2.0, 2), (2.5, None), (True, None), ("x", None), (1 << 60, None), (None, None)],
)
def test_ids_of_files(value: Any, number: int | None) -> None:
    assert whole(value) == number


@pytest.mark.parametrize(("text", "good"), [("cat", True), ("", False), (" ", False), ("a\nb", False), ("é", True)])
def test_names_of_files(text: str, good: bool) -> None:
    assert printable(text) is good


def test_what_no_file_can_hold_again_is_left_out(tmp_path: Path, store: Store) -> None:
    good = {"image_id": 1, "category_id": 1, "segmentation": rectangle(0, 0, 4, 4)}
    value = {
        "info": {"description": "\ud800"},
        "licenses": [{"id": 1, "share": float("nan")}],
        "bundle_info": {"bundle_id": "b"},
        "categories": [
            {"id": 1, "name": "cat (3)", "definition": "half a \ud800"},
            {"id": 2, "name": "cat"},
            {"id": 3, "name": "cat"},
            {"id": "²", "name": "no number"},
        ],
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}],
        # A record without an id is counted from -1 down, which may be taken.
        "annotations": [good | {"id": -2, "score": 10**400}, good, good | {"id": 4, "score": float("nan")}],
    }
    source, categories, _, objects = read(write(tmp_path / "x.json", value))
    assert [(one.name, one.definition) for one in categories] == [("cat (3)", ""), ("cat", ""), ("cat (3) (3)", "")]
    assert [(one.id, one.score) for one in objects] == [("-2", None), ("4", None)]
    assert source.info() == {"bundle_info": {"bundle_id": "b"}}
    imported = import_source(store, CocoSource(tmp_path / "x.json", "/none"))
    assert len(store.read_now(lambda c: datasets.categories(c, imported.dataset))) == 3
