import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segloop.config import PoolConfig, TruthConfig
from segloop.data import masks, pool
from segloop.data.pool import import_truth, read_shard, shard_labelled_set, shard_pool, shard_tables
from segloop.errors import SegloopError
from segloop.files import read_json, sha256_file, write_json


def run(root: Path, config: PoolConfig, *, shards: int = 3, seed: int = 0, max_skipped: float = 0.01) -> list[Path]:
    shard_pool(
        config=config.model_copy(update={"shards": shards}),
        data_root=root / "data",
        seed=seed,
        output=root / "pool/shards",
        manifest=root / "pool/manifest.json",
        skipped=root / "pool/skipped.json",
        max_skipped=max_skipped,
    )
    found = shard_tables(root / "pool/shards")
    assert [path.name for path in found] == [f"{number}.parquet" for number in range(shards)]
    return found


def listed(root: Path, images: int) -> PoolConfig:
    (root / "data").mkdir(exist_ok=True)
    lines = [f"/{number % 3}/scene/{number:08d}.jpg {number % 3}" for number in range(1, images + 1)]
    (root / "data/list.txt").write_text("\n".join(lines))
    return PoolConfig(format="places365", list="list.txt", images="images")


def everything(shards: list[Path]) -> tuple[list[int], list[str]]:
    parts = [read_shard(shard) for shard in shards]
    return [int(n) for part in parts for n in part.image_id], [name for part in parts for name in part.file_name]


def test_shards_are_consecutive_runs_of_the_list(tmp_path: Path) -> None:
    shards = run(tmp_path, listed(tmp_path, 10))
    ids, names = everything(shards)
    assert ids == list(range(1, 11))
    assert names[4] == str(tmp_path / "data/images/2/scene/00000005.jpg")
    assert sorted(len(read_shard(shard)) for shard in shards) == [3, 3, 4]
    first = read_shard(shards[0])
    assert (first.image_id.dtype, first.width.dtype, first.height.dtype) == (np.int64, np.int32, np.int32)
    assert first.width.tolist() == first.height.tolist() == [0] * len(first)


def test_the_manifest_counts_and_hashes(tmp_path: Path) -> None:
    shards = run(tmp_path, listed(tmp_path, 10))
    manifest = read_json(tmp_path / "pool/manifest.json")
    assert (manifest["images"], manifest["of"], manifest["sampled"], manifest["seed"]) == (10, 10, False, 0)
    assert [one["sha256"] for one in manifest["shards"]] == [sha256_file(shard) for shard in shards]
    assert [one["images"] for one in manifest["shards"]] == [len(read_shard(shard)) for shard in shards]
    assert read_json(tmp_path / "pool/skipped.json") == {"schema_version": 1, "used": 10, "skipped": [], "notes": []}


def test_small_blocks_and_a_second_run_give_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = listed(tmp_path, 50)
    shards = run(tmp_path, config)
    before = [shard.read_bytes() for shard in shards]
    expected = everything(shards)
    assert [shard.read_bytes() for shard in run(tmp_path, config)] == before
    monkeypatch.setattr(pool, "_BLOCK", 7)
    assert everything(run(tmp_path, config)) == expected


def test_a_sample_depends_on_the_seed_and_keeps_the_order(tmp_path: Path) -> None:
    config = listed(tmp_path, 100).model_copy(update={"sample": 30})
    first, names = everything(run(tmp_path, config, seed=1))
    assert len(first) == 30
    assert first == sorted(set(first))
    assert all(name.endswith(f"{number:08d}.jpg") for number, name in zip(first, names, strict=True))
    assert everything(run(tmp_path, config, seed=1))[0] == first
    assert everything(run(tmp_path, config, seed=2))[0] != first
    assert read_json(tmp_path / "pool/manifest.json")["sampled"] is True
    assert len(everything(run(tmp_path, config.model_copy(update={"sample": 101})))[0]) == 100


def test_a_sample_is_uniform(tmp_path: Path) -> None:
    config = listed(tmp_path, 20).model_copy(update={"sample": 10})
    hits = np.zeros(21)
    for seed in range(60):
        hits[everything(run(tmp_path, config, shards=1, seed=seed))[0]] += 1
    assert hits[1:].min() > 14
    assert hits[1:].max() < 46


def test_more_shards_than_images_leave_some_empty(tmp_path: Path) -> None:
    shards = run(tmp_path, listed(tmp_path, 2), shards=5)
    assert len(everything(shards)[0]) == 2
    assert sum(len(read_shard(shard)) == 0 for shard in shards) == 3


def test_shards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert everything(run(tmp_path, listed(tmp_path, 30), shards=12))[0] == list(range(1, 31))


def test_a_run_with_fewer_shards_leaves_none_of_the_old_ones(tmp_path: Path) -> None:
    run(tmp_path, listed(tmp_path, 10), shards=5)
    assert len(everything(run(tmp_path, listed(tmp_path, 10), shards=2))[0]) == 10


def test_a_folder_is_walked_in_one_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "sub/c.jpeg", "sub/deep/d.tif", "notes.txt", "a/e.jpg"):
        path = tmp_path / "data/images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    ids, names = everything(run(tmp_path, PoolConfig()))
    assert ids == [1, 2, 3, 4, 5]
    base = tmp_path / "data/images"
    assert names == [str(base / name) for name in ("a.PNG", "b.jpg", "a/e.jpg", "sub/c.jpeg", "sub/deep/d.tif")]


def test_hidden_files_and_links_upwards_are_left_out(tmp_path: Path) -> None:
    base = tmp_path / "data/images"
    for name in ("a.jpg", "._a.jpg", ".cache/b.jpg", "sub/c.jpg"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    (base / "sub/circle").symlink_to(base)
    assert everything(run(tmp_path, PoolConfig()))[1] == [str(base / "a.jpg"), str(base / "sub/c.jpg")]


def test_a_name_that_is_not_unicode_is_skipped_and_still_reported(tmp_path: Path) -> None:
    base = tmp_path / "data/images"
    base.mkdir(parents=True)
    for name in (b"a.jpg", b"\xff.jpg"):
        (base / os.fsdecode(name)).touch()
    assert len(everything(run(tmp_path, PoolConfig(), max_skipped=0.5))[0]) == 1
    (skipped,) = read_json(tmp_path / "pool/skipped.json")["skipped"]
    assert "not Unicode" in skipped["reason"]


def test_a_coco_pool_keeps_its_ids_and_sizes_and_opens_no_image(tmp_path: Path) -> None:
    images = [{"id": 40, "file_name": "x.png", "width": 8, "height": 6}, {"id": 7, "file_name": "y.png"}]
    (tmp_path / "data").mkdir()
    write_json(tmp_path / "data/pool.json", {"images": images})
    (shard,) = run(tmp_path, PoolConfig(format="coco", list="pool.json"), shards=1)
    found = read_shard(shard)
    assert found.image_id.tolist() == [40, 7]
    assert (found.width.tolist(), found.height.tolist()) == ([8, 0], [6, 0])
    assert read_json(tmp_path / "pool/skipped.json")["used"] == 2


def test_bad_lines_are_named_once_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    config = listed(tmp_path, 1)
    (tmp_path / "data/list.txt").write_text("/a/1.jpg 0\n/a/../../2.jpg 0\n/a/3.jpg 0\n")
    assert everything(run(tmp_path, config, max_skipped=0.5))[0] == [1, 3]
    (skipped,) = read_json(tmp_path / "pool/skipped.json")["skipped"]
    assert skipped["record"] == "line 2"
    with pytest.raises(SegloopError, match="1 of 3 records"):
        run(tmp_path, config)


def test_an_empty_or_missing_pool_is_refused(tmp_path: Path) -> None:
    config = listed(tmp_path, 1)
    (tmp_path / "data/list.txt").write_text("\n\n")
    with pytest.raises(SegloopError, match=r"pool is empty: .*list\.txt gives no image"):
        run(tmp_path, config)
    (tmp_path / "data/list.txt").unlink()
    with pytest.raises(SegloopError, match=r"list\.txt does not exist"):
        run(tmp_path, config)
    with pytest.raises(SegloopError, match=r"folder .* does not exist"):
        run(tmp_path, PoolConfig())
    with pytest.raises(SegloopError, match=r"needs pool\.list"):
        run(tmp_path, PoolConfig(format="coco"))
    write_json(tmp_path / "data/pool.json", [1])
    with pytest.raises(SegloopError, match="no COCO file"):
        run(tmp_path, PoolConfig(format="coco", list="pool.json"))
    assert not (tmp_path / "pool/manifest.json").exists()


def test_a_shard_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"none\.parquet cannot be read"):
        read_shard(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(SegloopError, match=r"bad\.parquet cannot be read"):
        read_shard(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(SegloopError, match=r"other\.parquet"):
        read_shard(tmp_path / "other.parquet")


# --- hidden truth ----------------------------------------------------------------------------------------------------

RLE = masks.to_json(masks.encode(np.ones((6, 8), bool)))


def truth(root: Path, names: list[str], shards: list[Path], *, images: str = "images", **changes: Any) -> Any:
    value = {
        "images": [{"id": 100 + n, "file_name": name, "width": 8, "height": 6} for n, name in enumerate(names)],
        "annotations": [
            {"id": 50 + n, "image_id": 100 + n, "category_id": 1, "segmentation": RLE} for n in range(len(names))
        ],
        "categories": [{"id": 1, "name": "thing"}],
    } | changes
    write_json(root / "data/truth.json", value)
    write_json(root / "seed.json", {"categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}]})
    import_truth(
        config=PoolConfig(images=images, truth=TruthConfig()),
        data_root=root / "data",
        shards=shards,
        seed_set=root / "seed.json",
        output=root / "pool/truth.json",
        skipped=root / "pool/truth.skipped.json",
        max_skipped=0.5,
    )
    return read_json(root / "pool/truth.json")


def test_truth_takes_the_ids_of_the_pool(tmp_path: Path) -> None:
    shards = run(tmp_path, listed(tmp_path, 5))
    found = truth(tmp_path, ["2/scene/00000005.jpg", "2/scene/00000002.jpg", "9/scene/none.jpg"], shards)
    assert [image["id"] for image in found["images"]] == [2, 5]
    assert [(one["id"], one["image_id"]) for one in found["annotations"]] == [(1, 2), (2, 5)]


def test_the_same_name_in_another_scene_is_another_image(tmp_path: Path) -> None:
    config = listed(tmp_path, 1)
    (tmp_path / "data/list.txt").write_text("/a/airfield/00000001.jpg 0\n/b/bar/00000002.jpg 1\n")
    shards = run(tmp_path, config)
    found = truth(tmp_path, ["b/bar/00000001.jpg", "b/bar/00000002.jpg"], shards)
    assert [image["id"] for image in found["images"]] == [2]


def test_bare_names_match_where_one_image_has_them(tmp_path: Path) -> None:
    config = listed(tmp_path, 1)
    (tmp_path / "data/list.txt").write_text("/a/x.jpg 0\n/b/x.jpg 1\n/b/y.jpg 1\n")
    shards = run(tmp_path, config)
    found = truth(tmp_path, ["x.jpg", "y.jpg"], shards)
    assert [image["id"] for image in found["images"]] == [3]


def test_a_second_truth_of_an_image_and_another_size_are_skipped(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 6 + (n == 2)} for n in (1, 2)]
    (tmp_path / "data").mkdir()
    write_json(tmp_path / "data/pool.json", {"images": images})
    shards = run(tmp_path, PoolConfig(format="coco", list="pool.json"))
    found = truth(tmp_path, ["1.png", "1.png", "2.png"], shards)
    assert [image["id"] for image in found["images"]] == [1]
    reasons = [one["reason"] for one in read_json(tmp_path / "pool/truth.skipped.json")["skipped"]]
    assert "same image of the pool" in reasons[0]
    assert "8 x 6, in the pool it has 8 x 7" in reasons[1]


def test_categories_must_agree_by_id_and_name(tmp_path: Path) -> None:
    shards = run(tmp_path, listed(tmp_path, 1))
    name = ["1/scene/00000001.jpg"]
    with pytest.raises(SegloopError, match="calls category 1 'other', which the seed set calls 'thing'"):
        truth(tmp_path, name, shards, categories=[{"id": 1, "name": "other"}])
    with pytest.raises(SegloopError, match="category 3 'new', which the seed set does not have"):
        truth(tmp_path, name, shards, categories=[{"id": 3, "name": "new"}])


def test_truth_of_another_pool_is_refused(tmp_path: Path) -> None:
    shards = run(tmp_path, listed(tmp_path, 1))
    with pytest.raises(SegloopError, match="no image of the pool"):
        truth(tmp_path, ["q/other.jpg"], shards)


def test_paths_open_from_the_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/images").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "data/images/a.png")
    monkeypatch.chdir(tmp_path)
    shard_pool(
        config=PoolConfig(shards=1),
        data_root=Path("data"),
        seed=0,
        output=Path("pool/shards"),
        manifest=Path("pool/manifest.json"),
        skipped=Path("pool/skipped.json"),
        max_skipped=0.0,
    )
    (name,) = read_shard(Path("pool/shards/0.parquet")).file_name
    assert name == "data/images/a.png"
    assert Path(name).exists()


def test_a_labelled_set_is_cut_into_shards_in_its_order(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"/far/away/{number}.jpg", "width": 4, "height": 3} for number in (7, 2, 9)]
    write_json(tmp_path / "set.json", {"images": images, "annotations": [], "categories": []})
    shard_labelled_set(labelled_set=tmp_path / "set.json", count=2, output=tmp_path / "shards")
    shards = [read_shard(path) for path in shard_tables(tmp_path / "shards")]
    assert [shard.image_id.tolist() for shard in shards] == [[7], [2, 9]]
    assert [name for shard in shards for name in shard.file_name] == [image["file_name"] for image in images]
    assert shards[0].width.tolist() == [4]
    shard_labelled_set(labelled_set=tmp_path / "set.json", count=5, output=tmp_path / "many")
    assert sum(len(read_shard(path)) for path in shard_tables(tmp_path / "many")) == 3
