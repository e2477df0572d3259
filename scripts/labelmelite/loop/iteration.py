"""What an iteration that waits for answers consists of, read from the files of its run."""

from dataclasses import dataclass
from pathlib import Path

from segloop.annotation.people import Record, read_gold, read_records
from segloop.annotation.probabilities import probability_path, read_probabilities
from segloop.annotation.recorded import Replay
from segloop.annotation.world import World, build_world
from segloop.config import Config, load, read_values
from segloop.errors import SegloopError
from segloop.files import read_document, read_json
from segloop.runs import START, iterations_with
from segloop.store.index import Index, read_index
from segloop.store.reduced import Reduced, read_reduced
from segloop.store.tree import Tree, read_tree


@dataclass(frozen=True, eq=False)
class Iteration:
    """The files of one iteration in memory.

    Attributes
    ----------
    run
        The run directory.
    number
        Of the iteration.
    categories
        Names by id, as in the seed set.
    definitions
        What the seed set says of its categories, by id.
    earlier
        Records of the earlier iterations, in their order.
    """

    run: Path
    number: int
    config: Config
    index: Index
    tree: Tree
    reduced: Reduced
    world: World
    categories: dict[int, str]
    definitions: dict[int, str]
    earlier: list[list[Record]]

    @property
    def folder(self) -> Path:
        """Where the run keeps what it made of this iteration."""
        return self.run / "results" / f"iter_{self.number}"

    @property
    def answers_root(self) -> Path:
        """The folder of people's answers."""
        return self.run / self.config.annotation.answers_root

    @property
    def answers(self) -> Path:
        """Where the answers of this iteration are handed over."""
        return self.answers_root / f"iter_{self.number}"

    @property
    def roots(self) -> list[Path]:
        """Folders that may hold the images of the pool and of the seed set."""
        return [self.run.resolve(), (self.run / self.config.data_root).resolve()]

    @property
    def taken(self) -> bool:
        """Whether the run has gone on with these answers."""
        return (self.folder / "verdicts.parquet").exists()

    @property
    def complete(self) -> bool:
        """Whether the answers were handed over."""
        return (self.answers / "complete.json").exists()

    def replay(self) -> Replay:
        """Return what turns records into a decision."""
        annotation, seed = self.config.annotation, self.config.seed
        return Replay(self.world, self.index, annotation, self.number, seed, self.earlier)

    def gold(self) -> dict[bytes, bool]:
        """Return the masks whose truth is known, by mask key."""
        path = self.answers_root / "gold.json"
        return read_gold(path if path.exists() else None)


def configuration_of(run: Path) -> Config:
    """Return the configuration that a run was started with last.

    Raises
    ------
    SegloopError
        If the folder holds no run.
    """
    if (run / START).exists():
        return load(read_document(run / START)["config"])
    written = run / "results" / "config.yaml"
    if not written.exists():
        raise SegloopError(f"{run} holds no run of segloop. Name its directory with --run, or start it first.")
    return load(read_values(written))


def waiting_iteration(run: Path) -> int:
    """Return the iteration that waits for answers, or else the last one that has a tree.

    Raises
    ------
    SegloopError
        If there is none.
    """
    root = run / configuration_of(run).annotation.answers_root
    trees = list(iterations_with(run, "tree.zarr"))
    waiting = [number for number in trees if not (root / f"iter_{number}" / "complete.json").exists()]
    if not trees:
        raise SegloopError(
            f"no iteration of {run} has a tree yet. Run the loop first; it stops where people are asked."
        )
    return waiting[0] if waiting else trees[-1]


def load_iteration(run: Path, number: int) -> Iteration:
    """Read an iteration.

    Raises
    ------
    SegloopError
        If a file is missing, damaged or of another iteration.
    """
    config = configuration_of(run)
    folder = run / "results" / f"iter_{number}"
    if not (folder / "tree.zarr").exists():
        raise SegloopError(
            f"iteration {number} of {run} has no tree yet. Run the loop first; it stops there by itself."
        )
    index, tree, reduced = (
        read_index(folder / "index.zarr"),
        read_tree(folder / "tree.zarr"),
        read_reduced(folder / "reduced.zarr"),
    )
    path = probability_path(config.annotation, number, folder / "agreement.npy")
    probability = None if path is None else read_probabilities(run / path, len(index))
    kinds = read_json(run / "resources" / "seed" / "train.json")["categories"]
    root = run / config.annotation.answers_root
    earlier = [root / f"iter_{before}" / "answers.jsonl" for before in range(1, number)]
    return Iteration(
        run=run,
        number=number,
        config=config,
        index=index,
        tree=tree,
        reduced=reduced,
        world=build_world(index, tree, reduced, probability),
        categories={int(kind["id"]): str(kind["name"]) for kind in kinds},
        definitions={int(kind["id"]): str(kind.get("definition", kind.get("def", ""))) for kind in kinds},
        earlier=[read_records(path) for path in earlier if path.exists()],
    )
