"""Small trees, indexes and oracles, made without the clustering."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from segloop.annotation.world import World
from segloop.collection.index import index_predictions
from segloop.data.masks import Rle, encode, to_json
from segloop.ids import prediction_ids
from segloop.store.index import Index
from segloop.store.predictions import PredictionWriter
from segloop.store.tree import Tree, validate

MakeTree = Callable[..., Tree]


def tree_of(categories: list[int], seed: int = 0, caterpillar: bool = False, nulls: int = 0) -> Tree:
    """Return a random tree over leaves with these categories (ascending), a node a category, then joined."""
    random = np.random.default_rng(seed)
    n = len(categories)
    left, right = [], []
    size = [1] * n

    def merge(nodes: list[int]) -> int:
        while len(nodes) > 1:
            i, j = (0, 1) if caterpillar else sorted(random.choice(len(nodes), 2, replace=False).tolist())
            left.append(nodes[i])
            right.append(nodes[j])
            size.append(size[nodes[i]] + size[nodes[j]])
            nodes = [len(size) - 1] + [node for place, node in enumerate(nodes) if place not in (i, j)]
        return nodes[0]

    kinds = sorted(set(categories))
    roots = [merge([leaf for leaf in range(n) if categories[leaf] == kind]) for kind in kinds]
    if roots:
        merge(list(roots))
    start = np.zeros(len(size), np.uint32)
    for node in range(len(size) - 1, n - 1, -1):
        start[left[node - n]] = start[node]
        start[right[node - n]] = start[node] + size[left[node - n]]
    order = np.empty(n, np.uint32)
    order[start[:n]] = np.arange(n)
    ids = prediction_ids(1, 0, n + nulls)
    # Rows in another order than prediction ids, so that a mix-up shows.
    shuffled = random.permutation(n + nulls)
    row_id, null_id = ids[shuffled[:n]], np.sort(ids[shuffled[n:]])
    height = np.arange(max(n - 1, 0), dtype=np.float32)
    parts = np.searchsorted(categories, [*kinds, np.inf]).astype(np.uint64)
    tree = Tree(
        left=np.array(left, np.uint32),
        right=np.array(right, np.uint32),
        height=height,
        height_mono=height,
        start=start,
        size=np.array(size, np.uint32),
        order=order,
        row_id=row_id,
        null_id=null_id,
        category_id=np.array(kinds, np.int32),
        category_node=np.array(roots, np.uint32),
        part_offset=parts,
        part_root=np.array(roots, np.uint32),
        part_dfs_start=start[roots] if roots else np.zeros(0, np.uint32),
        part_category=np.array(kinds, np.int32),
        part_mean=np.zeros((len(kinds), 4), np.float32),
        part_h_root=np.zeros(len(kinds), np.float32),
    )
    validate(tree)
    return tree


def world_of(tree: Tree, categories: list[int] | None = None) -> World:
    """Return a world over a tree: leaves, then the predictions outside it."""
    prediction = np.concatenate([tree.row_id, tree.null_id])
    count = len(prediction)
    kinds = np.full(count, 1, np.int32)
    if categories is not None:
        kinds[: tree.n] = categories
    score = np.random.default_rng(5).random(count).astype(np.float32)
    return World(tree, prediction, kinds, score, np.arange(count, dtype=np.int64))


def index_of(world: World, duplicates: int = 0) -> Index:
    """Return the index of a world and of further predictions that repeat earlier ones."""
    count = len(world) + duplicates
    prediction = np.concatenate([np.sort(world.prediction), prediction_ids(1, 1, duplicates)])
    place = np.searchsorted(prediction, world.prediction)
    category, score = np.ones(count, np.int32), np.zeros(count, np.float32)
    category[place], score[place] = world.category, world.score
    earlier, inherited = np.zeros(count, np.uint64), np.zeros(count, np.int8)
    earlier[len(world) :] = 1 << 56
    inherited[len(world) :] = np.resize([1, -1], duplicates)
    keys = np.random.default_rng(9).integers(0, 256, (count, 32)).astype(np.uint8)
    return Index(
        prediction=prediction,
        image_id=np.arange(count, dtype=np.int64),
        category=category,
        score=score,
        box=np.zeros((count, 4), np.float32),
        area=np.ones(count, np.int64),
        predicted_iou=None,
        mask_key=keys,
        duplicate_of=earlier,
        inherited=inherited,
    )


@pytest.fixture
def make_tree() -> MakeTree:
    return tree_of


@pytest.fixture
def make_world() -> Callable[..., World]:
    return world_of


@pytest.fixture
def make_index() -> Callable[..., Index]:
    return index_of


@pytest.fixture
def without_categories() -> Callable[[Tree], Tree]:
    """Return a function that makes a tree one that mixes categories."""
    return lambda tree: replace(tree, category_id=np.zeros(0, np.int32), category_node=np.zeros(0, np.uint32))


# Hypothesis wants fixtures that outlive one example.
@pytest.fixture(scope="session")
def tree_factory() -> MakeTree:
    return tree_of


@pytest.fixture(scope="session")
def world_factory() -> Callable[..., World]:
    return world_of


SIDE = 20
Rect = tuple[int, int, int, int]


def rle_of(rect: Rect) -> Rle:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[rect[1] : rect[3], rect[0] : rect[2]] = True
    return encode(mask)


class Scene:
    """Predictions and truth of rectangles, in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def predict(self, *shards: list[tuple[int, int, float, Rect]]) -> dict[str, Any]:
        """Write stores and index; a row is (image id, category id, score, (x0, y0, x1, y1)), by image and score."""
        stores = []
        for number, rows in enumerate(shards):
            stores.append(self.folder / f"{number}.zarr")
            with PredictionWriter(stores[-1], iteration=1, shard=number, model_sha256="", embedding_dim=2) as writer:
                for image in sorted({row[0] for row in rows}):
                    writer.append(image, SIDE, SIDE, self._detections([row for row in rows if row[0] == image]))
        index = self.folder / "index.zarr"
        index_predictions(
            predictions=stores,
            earlier=[],
            earlier_verdicts=[],
            output=index,
            score=0.0,
            duplicates_iou=0.8,
            iteration=1,
        )
        return {"index": index, "predictions": stores}

    @staticmethod
    def _detections(rows: list[tuple[int, int, float, Rect]]) -> Any:
        return SimpleNamespace(
            score=np.array([row[2] for row in rows], np.float32),
            category=np.array([row[1] for row in rows], np.int32),
            box=np.array([row[3] for row in rows], np.float32),
            masks=[rle_of(row[3]) for row in rows],
            embedding=np.ones((len(rows), 2), np.float32),
            predicted_iou=None,
        )

    def truth(self, rows: list[tuple[int, int, Rect, int]]) -> Path:
        """Write the truth; a row is (image id, category id, rectangle, iscrowd), numbered from 1."""
        annotations = [
            {
                "id": number,
                "image_id": image,
                "category_id": kind,
                "segmentation": to_json(rle_of(rect)),
                "iscrowd": crowd,
            }
            for number, (image, kind, rect, crowd) in enumerate(rows, start=1)
        ]
        path = self.folder / "truth.json"
        path.write_text(json.dumps({"images": [], "annotations": annotations, "categories": []}))
        return path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)
