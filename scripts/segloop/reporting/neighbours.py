"""Nearest neighbours of random queries, in the style of the thesis's Figures 3-4 and 3-5."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segloop.clustering.neighbours import exact_neighbours
from segloop.files import write_json
from segloop.randomness import generator
from segloop.reporting.sheets import Sheet, Tile, draw_sheet
from segloop.reporting.shown import ShownMask, category_names, draw_shown, look_up
from segloop.store.partitions import Partitions

SIDE = 136


def plot_neighbours(
    *,
    partitions: Path,
    predictions: list[Path],
    shards: list[Path],
    seed_set: Path,
    png: Path,
    ids: Path,
    iteration: int,
    queries: int,
    neighbours: int,
    seed: int,
) -> None:
    """Draw random predictions, one a row, and beside each those with the most similar embeddings.

    Parameters
    ----------
    partitions
        `partitions.zarr`: the embeddings of all predictions of the iteration that are no duplicates.
    predictions, shards
        The iteration's prediction stores and the pool's Parquet files, each in shard order.
    seed_set
        The canonical seed set, for the names of the categories.
    png
        The picture.
    ids
        JSON: {"schema_version", "iteration", "rows": [{"query", "neighbours": [{"prediction", "cosine"}]}]}; ids are
        text, because they exceed what JavaScript keeps exact.
    queries, neighbours
        Rows, and neighbours of each.

    Raises
    ------
    SegloopError
        If an input is missing or damaged.
    """
    source = Partitions(partitions)
    row_id = source.row_id
    chosen = _draw(row_id, queries, ("neighbours", seed, iteration))
    count = max(min(neighbours, len(row_id) - 1), 0)
    shown = look_up(chosen, predictions, shards)
    if len(chosen) and count:
        # What is clustered may be a part of what is stored, or something else.
        order = np.argsort(row_id)
        embeddings = source.picked(order[np.searchsorted(row_id, chosen, sorter=order)]).astype(np.float32)
        near, cosine = exact_neighbours(embeddings, partitions, count, chosen)
    else:
        near, cosine = np.zeros((len(chosen), 0), np.uint64), np.zeros((len(chosen), 0), np.float32)
    others = look_up(np.unique(near), predictions, shards)
    rows = _rows(shown, near, cosine, {mask.prediction: mask for mask in others}, category_names(seed_set))
    draw_sheet(_sheet(iteration, len(row_id), rows, count), png, side=SIDE)
    write_json(ids, _record(iteration, chosen, near, cosine))


def _draw(row_id: npt.NDArray[np.uint64], count: int, key: tuple[str | int, ...]) -> npt.NDArray[np.uint64]:
    # Sorted first: the order of the rows depends on the clustering, the choice of queries should not.
    return generator(*key).choice(np.sort(row_id), min(count, len(row_id)), replace=False) if len(row_id) else row_id


def _rows(
    queries: list[ShownMask],
    near: npt.NDArray[np.uint64],
    cosine: npt.NDArray[np.float32],
    masks: dict[int, ShownMask],
    names: dict[int, str],
) -> list[list[Tile]]:
    rows = []
    for query, ids, similarities in zip(queries, near.tolist(), cosine.tolist(), strict=True):
        own = Tile(draw_shown(query, SIDE), (_name(query, names), f"score {query.score:.2f}"))
        rows.append([own, *(_tile(masks[id_], query, s, names) for id_, s in zip(ids, similarities, strict=True))])
    return rows


def _tile(mask: ShownMask, query: ShownMask, cosine: float, names: dict[int, str]) -> Tile:
    other = mask.category != query.category
    name, similarity = _name(mask, names), f"cosine {cosine:.3f}"
    # A neighbour of another category is what a reader looks for: framed, and its name is the line in colour.
    return Tile(draw_shown(mask, SIDE), (similarity, f"≠ {name}") if other else (similarity, name), other)


def _name(mask: ShownMask, names: dict[int, str]) -> str:
    return names.get(mask.category, f"category {mask.category}")


def _sheet(iteration: int, total: int, rows: list[list[Tile]], count: int) -> Sheet:
    title = f"Iteration {iteration}: nearest neighbours of random queries"
    if not rows or not count:
        reason = (
            f"Iteration {iteration} has {total} {'prediction' if total == 1 else 'predictions'} with an embedding: "
            "no neighbours to show."
            if total < 2
            else "None is shown, because report.neighbour_queries is 0."
        )
        return Sheet(title, message=reason)
    tiles = [tile for row in rows for tile in row[1:]]
    same = sum(not tile.marked for tile in tiles)
    note = (
        f"{len(rows)} queries among {total:,} predictions. {same} of {len(tiles)} neighbours have the category of "
        "their query; framed and ≠: another category was predicted."
    )
    return Sheet(title, (note,), rows, ("query", *(f"neighbour {n}" for n in range(1, count + 1))), apart=True)


def _record(
    iteration: int,
    queries: npt.NDArray[np.uint64],
    near: npt.NDArray[np.uint64],
    cosine: npt.NDArray[np.float32],
) -> dict[str, object]:
    rows = [
        {
            "query": str(query),
            "neighbours": [
                {"prediction": str(id_), "cosine": round(value, 6)} for id_, value in zip(ids, values, strict=True)
            ],
        }
        for query, ids, values in zip(queries.tolist(), near.tolist(), cosine.tolist(), strict=True)
    ]
    return {"schema_version": 1, "iteration": iteration, "rows": rows}
