"""Worlds whose truth is known, which policies can be replayed on: from a file of arrays, or from a finished run."""

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from segloop.annotation.oracle import good, read_truth_match
from segloop.annotation.probabilities import read_probabilities
from segloop.annotation.world import World, build_world
from segloop.clustering.building import build_tree
from segloop.clustering.embeddings import ArraySource
from segloop.clustering.numerics import numerical_threads
from segloop.clustering.reduction import reduced_components
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.runs import iterations_with
from segloop.store.index import read_index
from segloop.store.reduced import read_reduced
from segloop.store.tree import read_tree

logger = logging.getLogger("segloop.simulation")

TREE: Final = ClusteringConfig(linkage="ward", n_exact=6000, m_max=4000)
"""How the tree of a file is built: flat clusters, and partitions small enough for hundreds of thousands of rows."""
COMPONENTS: Final = 32
READ_PROBABILITY: Final = ("verifier", "distillation")
"""Policies that read a probability of each mask."""

_ARRAYS: Final[dict[str, tuple[int, str, str]]] = {
    "embedding": (2, "f", "floats [n, d]"),
    "category": (1, "iu", "whole numbers [n]"),
    "score": (1, "f", "floats in 0..1 [n]"),
    "good": (1, "b", "true or false [n]"),
    "iou": (1, "f", "floats in 0..1 [n]"),
    "pred_iou": (1, "f", "floats in 0..1 [n]"),
    "probability": (1, "f", "floats in 0..1 [n]"),
    "image_id": (1, "iu", "whole numbers [n]"),
}
"""Arrays of a file that are read: dimensions, kinds of dtype, and both in words."""
_REQUIRED: Final = ("embedding", "category", "score")
_SHARES: Final = ("score", "iou", "pred_iou", "probability")


@dataclass(frozen=True)
class KnownWorld:
    """A world and its truth.

    Attributes
    ----------
    name
        For tables and figures.
    world
        What policies see.
    good : bool [N]
        The truth of each row of the world.
    probability
        Accept probability of each row, float32 [N], for the policies (by name) that read one.
    """

    name: str
    world: World
    good: npt.NDArray[np.bool_]
    probability: dict[str, npt.NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.world)


def world_of_file(
    path: Path, *, t_iou: float | None = None, tree: ClusteringConfig = TREE, components: int = COMPONENTS
) -> KnownWorld:
    """Read predictions and their truth from a file of arrays, and build their tree in memory.

    Parameters
    ----------
    path
        A `.npz` file with `embedding` [n, d], `category` [n], `score` [n] and `good` [n]; `iou`, `pred_iou`,
        `probability` (of any model's acceptance) and `image_id`, [n] each, may be missing. Other arrays are left aside.
    t_iou
        If given, a mask is good when its `iou` is above this, whatever `good` says.
    tree
        How the tree is built.
    components
        Principal components of the embeddings that policies learn from.

    Raises
    ------
    SegloopError
        If the file is missing or damaged, or an array is missing or has the wrong shape, type or values.
    """
    arrays = read_arrays(path)
    return world_of_arrays(arrays, truth_of(arrays, path, t_iou), path.stem, tree=tree, components=components)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read and check the arrays of a file (see `world_of_file`)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in _ARRAYS}
    except FileNotFoundError:
        raise SegloopError(f"{path} does not exist. Check --world.") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise SegloopError(f"{path} is no .npz file of arrays ({error}). Write it again with numpy.savez.") from None
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise SegloopError(f"{path} has no array {missing[0]!r} ({_ARRAYS[missing[0]][2]}). Add it.")
    count = len(arrays["score"]) if arrays["score"].ndim else 0
    if count == 0:
        raise SegloopError(f"{path}: array 'score' is empty. A world needs at least one prediction.")
    for name, array in arrays.items():
        _check(path, name, array, count)
    return arrays


def _check(path: Path, name: str, array: npt.NDArray[Any], count: int) -> None:
    dimensions, kinds, words = _ARRAYS[name]
    if array.ndim != dimensions or array.dtype.kind not in kinds or len(array) != count:
        raise SegloopError(
            f"{path}: array {name!r} holds {array.dtype} of shape {array.shape}; it must be {words}, n = {count}."
        )
    if name in _SHARES:
        wrong = np.flatnonzero(~((array >= 0) & (array <= 1)))
        if len(wrong):
            raise SegloopError(
                f"{path}: array {name!r} holds {array[wrong[0]]} in row {wrong[0]} ({len(wrong)} such rows); "
                "it must be finite and in 0..1."
            )


def truth_of(arrays: dict[str, npt.NDArray[Any]], path: Path, t_iou: float | None) -> npt.NDArray[np.bool_]:
    """Return which rows are good, bool [n]: `good` as it stands, or `iou` above a threshold.

    Raises
    ------
    SegloopError
        If the array that is needed is missing.
    """
    if t_iou is not None:
        if "iou" not in arrays:
            raise SegloopError(f"{path} has no array 'iou', which --t-iou needs. Leave --t-iou out, or add the array.")
        return np.asarray(arrays["iou"] > np.float32(t_iou))
    if "good" not in arrays:
        hint = "Give --t-iou, which derives it from 'iou'." if "iou" in arrays else "Add it; it is the truth."
        raise SegloopError(f"{path} has no array 'good'. {hint}")
    return np.asarray(arrays["good"], np.bool_)


def world_of_arrays(
    arrays: dict[str, npt.NDArray[Any]],
    truth: npt.NDArray[np.bool_],
    name: str,
    *,
    tree: ClusteringConfig = TREE,
    components: int = COMPONENTS,
    seed: int = 0,
) -> KnownWorld:
    """Build the world of arrays that were checked (see `world_of_file`); equal arrays give equal worlds.

    Parameters
    ----------
    truth : bool [n]
    seed
        Seed of k-means and of the sample that principal components are learned from.
    """
    built = build_tree(arrays["embedding"], arrays["category"], None, tree, seed)
    with numerical_threads(tree.threads):
        reduced, _ = reduced_components(ArraySource(arrays["embedding"]), components, seed)
    # Ids are 1..n, in the order of the arrays; rows of a world are in the order of the leaves.
    ids = np.concatenate([built.row_id, built.null_id])
    rows = ids.astype(np.int64) - 1
    given = {key: arrays[key][rows].astype(np.float32) for key in ("pred_iou", "probability") if key in arrays}
    image = arrays["image_id"] if "image_id" in arrays else np.arange(len(rows))
    world = World(
        tree=built,
        prediction=ids,
        category=arrays["category"][rows].astype(np.int32),
        score=arrays["score"][rows].astype(np.float32),
        image_id=image[rows].astype(np.int64),
        predicted_iou=given.get("pred_iou"),
        embedding=reduced[rows],
    )
    probability = dict.fromkeys(READ_PROBABILITY, given["probability"]) if "probability" in given else {}
    return KnownWorld(name, world, truth[rows], probability)


def world_of_run(
    directory: Path,
    iteration: int | None = None,
    *,
    t_iou: float,
    matching: Literal["any", "one_to_one"],
    probability_file: str | None = None,
) -> KnownWorld:
    """Read an iteration of a finished run whose pool has truth.

    Parameters
    ----------
    directory
        The run directory.
    iteration
        None: the last one whose predictions were matched with the truth.
    t_iou, matching
        What a good mask is, as in the configuration.
    probability_file
        As in the configuration, for the policy `verifier`.

    Raises
    ------
    SegloopError
        If the run has no such iteration, or a file is missing or damaged.
    """
    number = last_known_iteration(directory) if iteration is None else iteration
    folder = directory / "results" / f"iter_{number}"
    if not (folder / "truth_match.parquet").exists():
        raise SegloopError(
            f"{folder / 'truth_match.parquet'} does not exist: iteration {number} was not predicted yet, or the truth "
            "of the pool is not known (pool.truth). Check --run and --iteration."
        )
    probability = {"distillation": path} if (path := folder / "agreement.npy").exists() else {}
    if probability_file is not None:
        probability["verifier"] = directory / probability_file.replace("{iteration}", str(number))
    return world_of_iteration(
        index=folder / "index.zarr",
        tree=folder / "tree.zarr",
        reduced=folder / "reduced.zarr",
        truth_match=folder / "truth_match.parquet",
        name=f"{directory.resolve().name}, iteration {number}",
        t_iou=t_iou,
        matching=matching,
        probability=probability,
    )


def last_known_iteration(directory: Path) -> int:
    """Return the last iteration whose predictions were matched with the truth.

    Raises
    ------
    SegloopError
        If there is none.
    """
    found = list(iterations_with(directory, "truth_match.parquet"))
    if not found:
        raise SegloopError(
            f"{directory} holds no iteration with known truth (results/iter_*/truth_match.parquet). "
            "Check --run; a run whose pool has no truth cannot be replayed."
        )
    return found[-1]


def world_of_iteration(
    *,
    index: Path,
    tree: Path,
    reduced: Path,
    truth_match: Path,
    name: str,
    t_iou: float,
    matching: Literal["any", "one_to_one"],
    probability: dict[str, Path] | None = None,
) -> KnownWorld:
    """Read the world of an iteration and its truth.

    Parameters
    ----------
    probability
        For each policy that reads one, the file of its probabilities.

    Raises
    ------
    SegloopError
        If a file is missing or damaged, or they do not belong together.
    """
    rows, match = read_index(index), read_truth_match(truth_match)
    if not np.array_equal(match.prediction, rows.prediction):
        raise SegloopError(f"{truth_match} and {index} hold different predictions. Run match_truth again.")
    world = build_world(rows, read_tree(tree), read_reduced(reduced))
    place = np.searchsorted(rows.prediction, world.prediction)
    found = {policy: read_probabilities(path, len(rows))[place] for policy, path in (probability or {}).items()}
    return KnownWorld(name, world, good(match, t_iou, matching)[place], found)
