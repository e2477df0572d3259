"""Why a mask is in the data set: everything that led to it, gathered from the files of its run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segloop.annotation.answers import read_answers
from segloop.annotation.certificates import read_certificates
from segloop.annotation.people import read_names
from segloop.annotation.verdicts import ACCEPTED, DUPLICATE, read_verdicts
from segloop.config import Config, load
from segloop.errors import SegloopError
from segloop.files import read_document, read_json
from segloop.runs import START, iterations_with
from segloop.store.arrays import Store
from segloop.store.tree import KIND

Record = dict[str, Any]


@dataclass(frozen=True)
class Explanation:
    """What led to one collected mask; what a run no longer has is None or empty.

    Attributes
    ----------
    iteration, annotation_id
        Where it stands: its id in results/iter_{iteration}/collected.json.
    image, annotation
        Their records in that file; the annotation's provenance has the model, shard and row.
    category
        Name of the category.
    model
        Training of the model that predicted it: hash of the weights, architecture, categories.
    path
        The clusters that hold it, from the whole tree down to itself: {"node", "size", "height", "decided"}.
    answers
        What its verdict rests on, oldest first: {"answer_id", "annotator", "name", "reply", "reason", "purpose",
        "time", "seconds", "price", "about"}; `about` says whether the answer is about this mask or one of its cluster.
    certificate
        The audit of the set that it was accepted with.
    cost
        What an accepted mask of its iteration came to: {"questions", "seconds", "total_dollars"}.
    """

    iteration: int
    annotation_id: int
    image: Record
    annotation: Record
    category: str
    model: Record
    path: list[Record]
    answers: list[Record]
    certificate: Record | None
    cost: Record | None

    def record(self) -> Record:
        """Return all of it as plain values, for JSON."""
        return asdict(self)


def explain(run: Path, name: str, iteration: int | None = None) -> Explanation:
    """Return what led to a collected mask.

    Parameters
    ----------
    run
        The run directory.
    name
        An annotation's id in collected.json, a prediction id, or a mask key of 64 hexadecimal digits.
    iteration
        Of the annotation's id, which each iteration counts anew; may be left out if only one has it.

    Raises
    ------
    SegloopError
        If no collected mask is called so, or several are.
    """
    number, content, annotation = _find(run, name, iteration)
    folder = run / "results" / f"iter_{number}"
    image = next(one for one in content["images"] if one["id"] == annotation["image_id"])
    categories = {one["id"]: one["name"] for one in content["categories"]}
    config = load(read_document(run / START)["config"])
    return Explanation(
        iteration=number,
        annotation_id=int(annotation["id"]),
        image=image,
        annotation=annotation,
        category=str(categories[annotation["category_id"]]),
        model=_model(run, config, number, annotation["provenance"]),
        path=_path(folder / "tree.zarr", annotation["provenance"]),
        answers=_answers(folder / "answers.parquet", annotation["provenance"], _names(run, config)),
        certificate=_certificate(folder, annotation["provenance"]),
        cost=_cost(folder / "ledger.json"),
    )


def _find(run: Path, name: str, iteration: int | None) -> tuple[int, Record, Record]:
    if not (run / START).exists():
        raise SegloopError(f"no run was started in {run}. Give the --run directory of a run.")
    files = iterations_with(run, "collected.json")
    if iteration is not None:
        files = {number: path for number, path in files.items() if number == iteration}
    found = []
    for number, path in files.items():
        content = read_json(path)
        found += [(number, content, one) for one in content["annotations"] if _is_called(one, name)]
    if not found:
        where = f"iteration {iteration}" if iteration is not None else f"any of {len(files)} iterations"
        raise SegloopError(
            f"no collected mask of {run} is called {name} in {where}. See results/iter_*/collected.json."
        )
    if len(found) > 1:
        several = ", ".join(str(number) for number, _, _ in found)
        raise SegloopError(f"annotation {name} exists in the iterations {several}. Say which one by --iteration.")
    return found[0]


def _is_called(annotation: Record, name: str) -> bool:
    provenance = annotation["provenance"]
    return name in (str(annotation["id"]), provenance["prediction"], provenance["mask_key"])


def _model(run: Path, config: Config, iteration: int, provenance: Record) -> Record:
    folder = f"results/iter_{iteration - 1}/model"
    path = run / config.of_detector(folder, provenance.get("detector", "")) / "model.json"
    return read_document(path) if path.exists() else {}


def _names(run: Path, config: Config) -> dict[str, str]:
    return read_names(run / config.annotation.answers_root)


def _path(path: Path, provenance: Record) -> list[Record]:
    """Return the clusters that hold a prediction, from the root down; only what is on the way is read."""
    if not path.exists():
        return []
    tree = Store(path, KIND)
    rows = np.flatnonzero(tree.read("row_id") == np.uint64(provenance["prediction"]))
    if not len(rows):
        return []
    leaves = tree.shape("order")[0]
    place = int(np.flatnonzero(tree.read("order") == rows[0])[0])
    node, found = 2 * leaves - 2, []
    while True:
        inner = node >= leaves
        found.append(
            {
                "node": node,
                "size": int(tree.read("size", node, node + 1)[0]),
                "height": float(tree.read("height", node - leaves, node - leaves + 1)[0]) if inner else None,
                "decided": node == provenance["node"],
            }
        )
        if not inner:
            return found
        left, right = (int(tree.read(side, node - leaves, node - leaves + 1)[0]) for side in ("left", "right"))
        start, size = (int(tree.read(name, left, left + 1)[0]) for name in ("start", "size"))
        node = left if start <= place < start + size else right


def _answers(path: Path, provenance: Record, names: dict[str, str]) -> list[Record]:
    wanted = set(provenance["answers"])
    if not wanted or not path.exists():
        return []
    columns = ("answer_id", "annotator", "reply", "reason", "purpose", "time", "seconds", "price")
    found = []
    for row in read_answers(path).select([*columns, "mask_key"]).to_pylist():
        if row["answer_id"] not in wanted:
            continue
        own = row.pop("mask_key").hex() == provenance["mask_key"]
        found.append(row | {"name": names.get(row["annotator"]), "about": "this mask" if own else "its cluster"})
    return sorted(found, key=lambda one: (one["about"] != "this mask", one["time"] or "", one["answer_id"]))


def _certificate(folder: Path, provenance: Record) -> Record | None:
    verdicts, certificates = folder / "verdicts.parquet", folder / "certificates.json"
    if not verdicts.exists() or not certificates.exists():
        return None
    judged = read_verdicts(verdicts)
    row = int(np.searchsorted(judged.prediction, np.uint64(provenance["prediction"])))
    if row == len(judged) or judged.verdict[row] != ACCEPTED or judged.reason[row] == DUPLICATE:
        return None
    place = int(judged.certificate[row])
    name = judged.certificate_ids[place] if place >= 0 else None
    return next((asdict(one) for one in read_certificates(certificates) if one.certificate_id == name), None)


def _cost(path: Path) -> Record | None:
    return read_document(path)["per_accepted_mask"] if path.exists() else None
