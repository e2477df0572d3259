"""The runs of the question benchmark: on which worlds, with which settings, and how one is measured and recorded."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from reached_code import code_of
from segloop.annotation.policies import POLICIES
from segloop.config import AnnotationConfig, ClusteringConfig, load
from segloop.errors import SegloopError
from segloop.simulation.pilot import ANSWERS, forecast_record, forecasts
from segloop.simulation.replay import Curve, Result, simulate
from segloop.simulation.worlds import KnownWorld, world_of_arrays, world_of_file, world_of_run
from simulated_world import simulate as simulated_world

SUBCLUSTERS: Final = {82_306: 80, 411_530: 400}
"""Predictions of a subcluster on average: a larger pool has more of the same, not more kinds."""
FILE, RUN = "nuclei", "nuclei run"
MOST: Final = 800
"""Questions at most on the nuclei."""
LEVELS: Final = "BCDE"
SEEDS: Final = 5
"""Simulated worlds of a level and size."""
NUCLEI_SEEDS: Final = 20
CLAIMS: Final = 400
"""Small worlds on which claims are checked."""
_SMALL: Final = {"n": 6000, "categories": 20, "base_rate": 0.5, "per_subcluster": 60}
"""The many small worlds on which false claims are counted."""

Settings = dict[str, Any]

AUDIT: Final[Settings] = {"audit.questions": 450, "audit.enforce": True}
SETTINGS: Final[dict[str, list[Settings]]] = {
    "certified": [{}, {"audit.precision": 0.8}],
    "score_audit": [{}, {"audit.precision": 0.8}],
    "thesis": [
        {"n": 8, "t_agr": 1.0},
        {"n": 5, "t_agr": 0.8},
        {"n": 10, "t_agr": 0.9},
        {"n": 8, "t_agr": 1.0, **AUDIT},
    ],
    "iccv21": [
        {"questions": 2000, "iccv21.min_prior": 0.0},
        {"questions": 8000, "iccv21.min_prior": 0.0},
        {"questions": 2000, "iccv21.min_prior": 0.0, **AUDIT},
    ],
    "propagate": [{"questions": 2000}, {"questions": 2000, **AUDIT}],
    "kmeans": [{"n": 8, "t_agr": 1.0}, {"n": 5, "t_agr": 0.8}, {"n": 8, "t_agr": 1.0, **AUDIT}],
    "per_mask": [{}, {"order": "score"}],
    "score_threshold": [{"threshold": 0.9, **AUDIT}, {"threshold": 0.95, **AUDIT}],
    "iou_threshold": [{"threshold": 0.9, **AUDIT}],
    "verifier": [{"threshold": 0.9, **AUDIT}],
    "distillation": [{"threshold": 0.9, **AUDIT}],
}
"""What each policy is tried with; its first setting is drawn in the figure."""
AUDITED: Final = ("certified", "score_audit", "thesis")
"""Policies whose claims are counted on many small worlds."""


@dataclass(frozen=True)
class Place:
    """A world."""

    part: str
    """`simulated`, `nuclei` or `claims`."""
    world: str
    """The level of a simulated world, or `nuclei` or `nuclei run`."""
    n: int
    """Predictions; 0: as many as the file or the run has."""
    seed: int
    """Of a simulated world."""
    t_iou: float | None = None
    source: str | None = None
    """The file or the run directory."""

    @property
    def name(self) -> str:
        """What records call it."""
        return self.world if self.t_iou is None else f"{self.world}, IoU > {self.t_iou:g}"

    @property
    def size(self) -> int:
        """Predictions, or the bytes of the file or of the run's index: another one is another world."""
        if self.source is None:
            return self.n
        path = Path(self.source)
        files = [path] if path.is_file() else sorted(path.glob("results/iter_*/truth_match.parquet"))
        return sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Task:
    """One run."""

    place: Place
    policy: str
    settings: str
    """JSON, so that a task can be compared."""
    seed: int

    @property
    def key(self) -> str:
        """What makes a run this run."""
        place = self.place
        return json.dumps([place.part, place.name, place.size, place.seed, self.policy, self.settings, self.seed])


# --- which runs -------------------------------------------------------------------------------------------------------


def simulated_tasks(levels: str, sizes: list[int], policies: list[str], seeds: int) -> Iterator[Task]:
    """Yield the runs on simulated worlds; world and questions take the same seed."""
    for n in sizes:
        for seed in range(seeds):
            for level in levels:
                place = Place("simulated", level, n, seed)
                yield from (Task(place, policy, json.dumps(one), seed) for policy, one in _settings(policies))


def nuclei_tasks(world: str, source: Path, t_iou: float, policies: list[str], seeds: int) -> Iterator[Task]:
    """Yield the runs on real predictions."""
    place = Place("nuclei", world, 0, 0, t_iou, str(source.absolute()))
    for seed in range(seeds):
        for policy, settings in _settings(policies):
            # Eight thousand questions would become the same as two thousand.
            if settings.get("questions", 0) <= 2000:
                yield Task(place, policy, json.dumps({**settings, "questions": MOST}), seed)


def claim_tasks(policies: list[str], worlds: int) -> Iterator[Task]:
    """Yield the runs on many small worlds, of well and less well separable levels in turn."""
    for seed in range(worlds):
        place = Place("claims", "DE"[seed % 2], _SMALL["n"], 10_000 + seed)
        for policy in policies:
            if policy in AUDITED:
                settings = {"n": 8, "t_agr": 1.0, **AUDIT} if policy == "thesis" else {}
                yield Task(place, policy, json.dumps(settings), seed)


def planned(sources: int) -> int:
    """Return how many runs the command makes when nothing is left out, with so many sources of real predictions."""
    policies = list(SETTINGS)
    simulated = sum(1 for _ in simulated_tasks(LEVELS, list(SUBCLUSTERS), policies, SEEDS))
    real = sum(1 for _ in nuclei_tasks(FILE, Path(FILE), 0.8, policies, NUCLEI_SEEDS))
    return simulated + 2 * sources * real + sum(1 for _ in claim_tasks(policies, CLAIMS))


def _settings(policies: list[str]) -> Iterator[tuple[str, Settings]]:
    for policy in policies:
        for one in SETTINGS[policy]:
            yield policy, one


def configuration(policy: str, settings: Settings) -> AnnotationConfig:
    """Return the annotation section with some keys set; nested keys are joined by dots."""
    section: dict[str, Any] = {"policy": policy, "probability_file": "probability"}
    for key, value in settings.items():
        inner = section
        *above, last = key.split(".")
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return load({"annotation": section}).annotation


# --- measuring --------------------------------------------------------------------------------------------------------


def build(place: Place) -> KnownWorld:
    """Build or read a world."""
    if place.part != "nuclei":
        options = _SMALL if place.part == "claims" else {"n": place.n, "per_subcluster": _per_subcluster(place.n)}
        arrays = vars(simulated_world(place.world, seed=place.seed, **options))
        return world_of_arrays(arrays, arrays["good"], place.name, seed=place.seed)
    assert place.source is not None and place.t_iou is not None
    if place.world == FILE:
        known = world_of_file(Path(place.source), t_iou=place.t_iou)
    else:
        known = world_of_run(Path(place.source), t_iou=place.t_iou, matching="any")
    return KnownWorld(place.name, known.world, known.good, known.probability)


def _per_subcluster(n: int) -> int:
    return SUBCLUSTERS.get(n, 400 if n > 400_000 else 80)


def measure(task: Task, known: KnownWorld) -> dict[str, Any]:
    """Run a task and return its record, or why the policy cannot run on this world."""
    about = {"key": task.key, "part": task.place.part, "code": code(task.policy)}
    try:
        result = simulate(known, configuration(task.policy, json.loads(task.settings)), task.seed)
    except SegloopError as error:
        return {"policy": task.policy, "world": known.name, "left_out": str(error), **about}
    return to_record(result) | about | {"settings": json.loads(task.settings)}


def to_record(result: Result) -> dict[str, Any]:
    """Return a result as plain values; its curve as text, four numbers a point."""
    names = ("accepted", "correct", "confirmed", "good", "certified_count", "seconds", "slowest")
    curve = result.curve.thinned(12)
    columns = (curve.questions, curve.accepted, curve.correct, curve.confirmed)
    text = ";".join(" ".join(map(str, point)) for point in zip(*(column.tolist() for column in columns), strict=True))
    return result.record() | {name: getattr(result, name) for name in names} | {"curve": text}


def from_record(record: dict[str, Any]) -> Result:
    """Return the result that a record was made of."""
    points = np.array([point.split() for point in record["curve"].split(";")], np.int64)
    names = ("world", "n", "seed", "policy", "settings", "questions", "accepted", "correct", "confirmed", "good")
    values = {name: record[name] for name in (*names, "certified", "certified_count", "seconds", "slowest")}
    return Result(**values, curve=Curve(*points.T))


_PACKAGES: Final = (
    "questions_runs",
    "simulated_world",
    "segloop.annotation",
    "segloop.clustering",
    "segloop.randomness",
    "segloop.simulation",
    "segloop.store.tree",
)
_EVERY_POLICY: Final = ("segloop.annotation.policies", "POLICIES")


@cache
def code(policy: str) -> str:
    """Return a digest of what the numbers of a policy's runs depend on but their settings."""
    made: Any = POLICIES[policy]
    own = (made.__self__.__module__, made.__self__.__name__)
    roots = [("questions_runs", "build"), ("questions_runs", "measure"), own]
    text = code_of(roots, _PACKAGES, [_EVERY_POLICY, ("questions_runs", "code")])
    used = {name for name in AnnotationConfig.model_fields if f".{name}" in text}
    text += AnnotationConfig().model_dump_json(include=used) + ClusteringConfig().model_dump_json()
    found = hashlib.sha256(text.encode())
    for name in ("numpy", "scipy", "fastcluster", "faiss-cpu"):
        found.update(f"{name} {metadata.version(name)}\n".encode())
    return found.hexdigest()[:16]


NOT_REPEATED: Final = {"runs": 0, "same": 0}
_FIGURES: Final = ("questions", "accepted", "correct", "confirmed", "good", "certified", "left_out")


def repeated(count: dict[str, int], older: dict[str, Any], run: dict[str, Any]) -> dict[str, int]:
    """Return how many runs were measured again by later code, and how many of them gave the same figures."""
    same = all(older.get(name) == run.get(name) for name in _FIGURES)
    return {"runs": count["runs"] + 1, "same": count["same"] + same}


# --- how good is the pilot --------------------------------------------------------------------------------------------


def back_test(place: Place, seeds: int, worlds: int) -> dict[str, Any]:
    """Forecast from a few answers what `certified` will bring, and run it; one row a seed."""
    known, config = build(place), configuration("certified", {"audit.precision": 0.8, "questions": MOST})
    rows = []
    for seed in range(seeds):
        (forecast,) = forecasts(known, [config], answers=ANSWERS, worlds=worlds, seed=seed)
        result = simulate(known, config, seed)
        realised = {"masks": result.correct, "questions": result.questions, "precision": result.precision}
        rows.append({"seed": seed, "forecast": forecast_record(forecast), "realised": realised})
        print(f"pilot, seed {seed}: {realised}", flush=True)
    return {
        "place": asdict(place) | {"source": None},
        "answers": ANSWERS,
        "worlds": worlds,
        "code": code("certified"),
        "rows": rows,
    }
