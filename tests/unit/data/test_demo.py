from pathlib import Path

import numpy as np
import pytest

from segloop.config import LabelledSetConfig, PoolConfig, TruthConfig
from segloop.data import masks
from segloop.data.demo import CATEGORIES, DISTRACTORS, MIN_VISIBLE, generate, make_scene
from segloop.data.images import open_image
from segloop.data.pool import import_truth, read_shard, shard_pool, shard_tables
from segloop.data.seed import import_labelled_set
from segloop.files import read_json, sha256_file
from segloop.randomness import generator

SIZES = {"seed_images": 6, "pool_images": 12, "validation_images": 4, "image_size": 64}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    generate(folder, seed=3, **SIZES)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(demo: Path, tmp_path: Path) -> None:
    generate(tmp_path / "again", seed=3, **SIZES)
    assert hashes(tmp_path / "again") == hashes(demo)
    generate(tmp_path / "other", seed=4, **SIZES)
    assert (
        hashes(tmp_path / "other")["seed/images/scene_00000001.jpg"] != hashes(demo)["seed/images/scene_00000001.jpg"]
    )


def test_a_scene_does_not_depend_on_how_many_there_are(demo: Path, tmp_path: Path) -> None:
    generate(tmp_path / "more", seed=3, **SIZES | {"seed_images": 7, "pool_images": 3})
    name = "seed/annotations/scene_00000006.png"
    assert hashes(tmp_path / "more")[name] == hashes(demo)[name]


def test_no_scene_of_one_part_is_in_another(demo: Path) -> None:
    pictures = [digest for name, digest in hashes(demo).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 22


def test_the_readers_read_it(demo: Path, tmp_path: Path) -> None:
    for part, images in (("seed", 6), ("validation", 4)):
        config = LabelledSetConfig(
            format="places_challenge",
            annotations=f"{part}/annotations",
            images=f"{part}/images",
            categories="categories.txt",
        )
        output = tmp_path / f"{part}.json"
        import_labelled_set(
            config=config, data_root=demo, output=output, skipped=tmp_path / "skipped.json", max_skipped=0.0
        )
        found = read_json(output)
        assert len(found["images"]) == images
        assert [one["name"] for one in found["categories"]] == [shape.name for shape in CATEGORIES]
    config = PoolConfig(
        format="places365",
        list="pool/list.txt",
        images="pool/images",
        shards=2,
        truth=TruthConfig(annotations="pool/truth.json"),
    )
    common = {"config": config, "data_root": demo, "skipped": tmp_path / "skipped.json", "max_skipped": 0.0}
    shard_pool(seed=0, output=tmp_path / "shards", manifest=tmp_path / "manifest.json", **common)  # type: ignore[arg-type]
    shards = shard_tables(tmp_path / "shards")
    import_truth(shards=shards, seed_set=tmp_path / "seed.json", output=tmp_path / "truth.json", **common)  # type: ignore[arg-type]
    found = read_json(tmp_path / "truth.json")
    names = {}
    for shard in map(read_shard, shards):
        names |= dict(zip(shard.image_id.tolist(), shard.file_name, strict=True))
    assert len(found["images"]) == len(names) == 12
    assert all(names[image["id"]] == image["file_name"] for image in found["images"])
    assert len(found["annotations"]) == len(read_json(demo / "pool/truth.json")["annotations"]) > 12
    assert all(open_image(name).shape == (64, 64, 3) for name in names.values())
    complete = read_json(demo / "complete.json")
    assert complete["instances"] == {
        "seed": len(read_json(tmp_path / "seed.json")["annotations"]),
        "pool": len(found["annotations"]),
    }


def test_scenes_of_the_pool_are_nested_like_those_of_places(demo: Path) -> None:
    lines = (demo / "pool/list.txt").read_text().splitlines()
    assert all(line.startswith("/") and line.split()[1].isdecimal() for line in lines)
    depths = {line.count("/") for line in lines}
    assert depths == {3, 4}
    assert [line.split()[1] for line in lines] == sorted(line.split()[1] for line in lines)


def test_masks_are_visible_pixels_of_enough_size() -> None:
    for number in range(20):
        scene = make_scene(generator("test", number), 96)
        assert 1 <= len(scene.objects) <= 8
        assert np.sum([mask for _, mask in scene.objects], axis=0).max() <= 1
        assert all(mask.sum() >= MIN_VISIBLE for _, mask in scene.objects)


def test_a_mask_differs_from_what_surrounds_it() -> None:
    contrasts = []
    for number in range(15):
        scene = make_scene(generator("contrast", number), 96)
        anything = np.logical_or.reduce([mask for _, mask in scene.objects])
        ground = scene.picture[~anything].mean(axis=0)
        contrasts += [abs(scene.picture[mask].mean(axis=0) - ground).sum() for _, mask in scene.objects]
    assert np.median(contrasts) > 80


def test_categories_have_a_long_tail() -> None:
    counts = np.zeros(len(CATEGORIES) + 1, int)
    for number in range(150):
        for category, _ in make_scene(generator("tail", number), 64).objects:
            counts[category] += 1
    assert counts[0] == 0
    assert counts[1:].min() > 0
    assert counts[1] > 4 * counts[-1]


def test_every_shape_fits_the_unit_disc_and_is_not_another() -> None:
    v, u = np.mgrid[-1.5:1.5:121j, -1.5:1.5:121j]
    own = np.full(6, 0.5)
    shapes = [shape.inside(u, v, own) for shape in (*CATEGORIES, *DISTRACTORS)]
    for shape, inside in zip((*CATEGORIES, *DISTRACTORS), shapes, strict=True):
        assert inside.any(), shape.name
        assert np.hypot(u, v)[inside].max() < 1.2, shape.name
    found = masks.iou([masks.encode(one) for one in shapes], [masks.encode(one) for one in shapes])
    found -= np.eye(len(shapes))
    assert found[: len(CATEGORIES), : len(CATEGORIES)].max() < 0.8
    assert found.max() < 0.85


@pytest.mark.parametrize("size", [48, 200])
def test_other_sizes_work(size: int) -> None:
    scene = make_scene(generator("size", size), size)
    assert scene.picture.shape == (size, size, 3)
