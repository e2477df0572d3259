from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from segloop.annotation.answers import ANSWER_SCHEMA, write_answers
from segloop.clustering.joining import join_trees
from segloop.clustering.linkage import link_partitions
from segloop.clustering.reduction import reduce_embeddings
from segloop.config import ClusteringConfig
from segloop.files import read_json, write_json
from segloop.reporting.category_gallery import plot_category_gallery
from segloop.reporting.clusters import clusters_asked, plot_clusters, read_said
from segloop.reporting.embedding_map import plot_embedding_map
from segloop.store.tree import Tree, read_tree

from .conftest import Iteration


@pytest.fixture
def tree(judged: Iteration) -> Tree:
    config, folder = ClusteringConfig(), judged.folder
    link_partitions(partitions=judged.partitions, batch=0, output=folder / "links.zarr", config=config)
    join_trees(partitions=judged.partitions, links=[folder / "links.zarr"], output=folder / "tree.zarr", config=config)
    return read_tree(folder / "tree.zarr")


def answer(iteration: Iteration, said: list[tuple[int, str, list[int]]]) -> Path:
    records = [
        {"answer_id": str(n), "prediction": int(iteration.ids[place]), "mask_key": bytes(32), "annotator": "p",
         "purpose": "decide", "reply": reply, "counted_at": nodes}
        for n, (place, reply, nodes) in enumerate(said)
    ]  # fmt: skip
    path = iteration.folder / "answers.parquet"
    write_answers(path, pa.Table.from_pylist(records, schema=ANSWER_SCHEMA))
    return path


def draw(iteration: Iteration, path: Path) -> tuple[Path, Path]:
    purity, history = iteration.folder / "purity.png", iteration.folder / "splits.png"
    plot_clusters(
        tree=iteration.folder / "tree.zarr",
        answers=path,
        verdicts=iteration.verdicts,
        predictions=iteration.predictions,
        shards=iteration.shards,
        seed_set=iteration.seed_set,
        purity=purity,
        history_svg=iteration.folder / "splits.svg",
        history_png=history,
        iteration=1,
        clusters=2,
        seed=0,
    )
    return purity, history


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_answers_count_where_a_cluster_counted_them(judged: Iteration, tree: Tree) -> None:
    one, other = int(tree.category_node[0]), int(tree.category_node[1])
    said = [
        (0, "yes", [one, tree.root]),
        (1, "no", [one]),
        (2, "yes", [one]),
        (3, "other", [other]),
        (4, "yes", [other]),
    ]
    found = clusters_asked(tree, read_said(answer(judged, said), tree))
    assert [(each.node, each.yes, len(each.answers)) for each in found] == [(one, 2, 3)]
    assert found[0].agreement == pytest.approx(2 / 3)


def test_without_asked_clusters_answers_count_where_they_fall(judged: Iteration, tree: Tree) -> None:
    said = [(place, "yes", []) for place in range(9)]
    found = clusters_asked(tree, read_said(answer(judged, said), tree))
    assert sum(each.size for each in found) == tree.n == 9
    assert all(each.share == 1 for each in found)


def test_clusters_and_splits_are_drawn(judged: Iteration, tree: Tree) -> None:
    root = tree.root
    left, right = tree.children(root)
    said = [(place, "yes" if place % 2 else "no", [root]) for place in range(4)]
    said += [(place, "yes", [left, right]) for place in range(4, 8)]
    purity, history = draw(judged, answer(judged, said))
    assert size(purity)[1] > 300
    assert size(history)[1] > 250


def test_no_answer_at_all_is_said(judged: Iteration, tree: Tree) -> None:
    purity, history = draw(judged, answer(judged, []))
    assert size(purity)[1] < 400
    assert size(history)[1] < 250


def test_a_deleted_image_leaves_an_empty_square(judged: Iteration, tree: Tree) -> None:
    judged.image(1).unlink()
    purity, _ = draw(judged, answer(judged, [(place, "yes", [tree.root]) for place in range(4)]))
    assert purity.exists()


def test_a_row_a_category(judged: Iteration) -> None:
    png = judged.folder / "categories.png"
    shared = {"predictions": judged.predictions, "shards": judged.shards, "seed_set": judged.seed_set}
    index = judged.folder / "index.zarr"
    plot_category_gallery(index=index, verdicts=judged.verdicts, png=png, iteration=1, seed=0, **shared)
    assert size(png)[0] > 1500
    assert size(png)[1] > 400


def test_the_map_needs_nothing_but_itself_and_runs_no_script_of_a_name(judged: Iteration) -> None:
    folder = judged.folder
    seed_set = read_json(judged.seed_set)
    for category in seed_set["categories"]:
        category["name"] = "</script><script>alert(1)</script>"
    write_json(judged.seed_set, seed_set)
    reduce_embeddings(partitions=judged.partitions, output=folder / "reduced.zarr", components=3, seed=0, threads=1)
    plot_embedding_map(
        reduced=folder / "reduced.zarr",
        predictions=judged.predictions,
        shards=judged.shards,
        verdicts=judged.verdicts,
        seed_set=judged.seed_set,
        html=folder / "map.html",
        table=folder / "map.csv",
        iteration=1,
        masks=6,
        seed=0,
    )
    lines = (folder / "map.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7
    page = (folder / "map.html").read_text(encoding="utf-8")
    assert "<script src=" not in page
    assert page.count("data:image/jpeg") == 6
    assert "alert(1)" in page and "<script>alert(1)" not in page and "</script><" not in page.partition("const spec")[2]
    assert all(
        str(one) in {str(each) for each in judged.ids} for one in np.array([line.split(",")[0] for line in lines[1:]])
    )
