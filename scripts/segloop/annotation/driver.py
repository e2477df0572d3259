"""Questions, answers and verdicts of an iteration, answered by the oracle or replayed from people's answers."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segloop.annotation.answers import (
    ANSWER_SCHEMA,
    NO,
    PURPOSES,
    RECORD_SCHEMA,
    REPLIES,
    YES,
    Answers,
    answer_id,
    write_answers,
)
from segloop.annotation.oracle import good, read_truth_match
from segloop.annotation.policies import Decision, Policy, make_policy
from segloop.annotation.verdicts import DUPLICATE, Verdicts, write_verdicts
from segloop.annotation.world import World, build_world
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.files import fingerprint
from segloop.randomness import seed_of
from segloop.store.index import Index, read_index
from segloop.store.tree import read_tree
from segloop.workers import HERE, Workplace, worker_map

logger = logging.getLogger("segloop.annotation")

DECIDE = PURPOSES.index("decide")

Integers = npt.NDArray[np.int64]
AnswerRows = Callable[[Integers], npt.NDArray[np.int8]]


@dataclass(frozen=True)
class Asked:
    """Questions that were asked and their replies, one row each.

    Attributes
    ----------
    row, node, draw : int64 [A]
        As in `Decision`.
    batch : int64 [A]
        The round of questions, from 0, counted in each unit by itself.
    reply : int8 [A]
    """

    row: Integers
    node: Integers
    draw: Integers
    batch: Integers
    reply: npt.NDArray[np.int8]

    def answers(self, world: World) -> Answers:
        """Return these answers as a policy sees them."""
        return Answers(world.prediction[self.row], self.reply, self.node, np.full(len(self.row), DECIDE, np.int8))

    @staticmethod
    def join(parts: list["Asked"]) -> "Asked":
        """Return all parts in the order of round, node and draw, which does not depend on how work was dealt out."""
        nothing = np.zeros(0, np.int64)
        row, node, draw, batch = (
            np.concatenate([nothing, *(getattr(part, name) for part in parts)])
            for name in ("row", "node", "draw", "batch")
        )
        reply = np.concatenate([np.zeros(0, np.int8), *(part.reply for part in parts)])
        order = np.lexsort((draw, node, batch))
        return Asked(row[order], node[order], draw[order], batch[order], reply[order])


def ask_until_done(policy: Policy, world: World, seed: int, answer: AnswerRows, units: Integers) -> Asked:
    """Ask round after round until the policy has no more questions about these units.

    Each step goes on at the units that waited, so that what is decided is not walked through again; that changes
    nothing, because a policy's step at a unit depends on the answers alone.

    Parameters
    ----------
    answer
        Takes rows, returns `YES` or `NO` for each.
    """
    rounds: list[Asked] = []
    known: list[Answers] = []
    while len(units):
        decision = policy.step(world, Answers.join(known), seed, units)
        if decision.done:
            break
        rows = decision.question_row
        batch = np.full(len(rows), len(rounds), np.int64)
        rounds.append(Asked(rows, decision.question_node, decision.question_draw, batch, answer(rows)))
        known.append(rounds[-1].answers(world))
        units = decision.waiting
    return Asked.join(rounds)


def annotate_oracle(
    *,
    tree: Path,
    index: Path,
    truth_match: Path,
    answers: Path,
    verdicts: Path,
    config: AnnotationConfig,
    iteration: int,
    seed: int,
    where: Workplace = HERE,
) -> None:
    """Ask the oracle until the policy is done; the same bytes for any `config.workers`.

    Parameters
    ----------
    tree, index, truth_match
        Inputs of this iteration.
    answers, verdicts
        The Parquet files to write; verdicts hold one row for every prediction of the index.
    seed
        The run's seed; draws depend on it and on the iteration.
    where
        Where the workers run, if there are several.

    Raises
    ------
    SegloopError
        If inputs are missing, damaged or of different iterations.
    """
    files = _Inputs(str(tree), str(index), str(truth_match), _fingerprint(tree, index, truth_match), config)
    try:
        world, _ = _load(files)
        policy, key = make_policy(config), policy_seed(seed, iteration)
        units = policy.units(world)
        tasks = [(files, key, part) for part in _deal(world, units, config.workers)]
        with worker_map(config.workers, where=where) as run:
            asked = Asked.join(run(_ask_units, tasks))
    finally:
        _load.cache_clear()
    # The verdicts come from a replay of the whole log: what is written is what anybody gets from these answers.
    decision = policy.step(world, asked.answers(world), key)
    if not decision.done:
        raise AssertionError(f"replaying its own answers, {config.policy} asks {len(decision.question_row)} more")
    rows = read_index(index)
    write_answers(answers, _oracle_table(asked, decision, world, rows, config, iteration))
    write_verdicts(verdicts, judge(rows, world, decision))
    logger.info("%d questions, %d of %d accepted", len(asked.row), np.sum(decision.verdict == 1), len(world))


def policy_seed(seed: int, iteration: int) -> int:
    """Return the seed of a policy's draws in an iteration of a run."""
    return seed_of("annotate", seed, iteration)


def judge(index: Index, world: World, decision: Decision) -> Verdicts:
    """Return the verdict of every prediction of the index; duplicates inherit theirs."""
    verdict, reason = index.inherited.astype(np.int8), np.zeros(len(index), np.int8)
    node = np.full(len(index), -1, np.int64)
    reason[index.duplicate_of != 0] = DUPLICATE
    place = np.searchsorted(index.prediction, world.prediction)
    verdict[place], reason[place], node[place] = decision.verdict, decision.reason, decision.node
    return Verdicts(index.prediction, verdict, reason, node)


# --- the oracle's side ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inputs:
    """What a worker reads; the fingerprint keeps it from taking a replaced file for the one it has in memory."""

    tree: str
    index: str
    truth_match: str
    fingerprint: str
    config: AnnotationConfig


def _fingerprint(*paths: Path) -> str:
    return " ".join(fingerprint(path / "zarr.json" if path.is_dir() else path) for path in paths)


@lru_cache(maxsize=1)
def _load(files: _Inputs) -> tuple[World, npt.NDArray[np.int8]]:
    """Return the world and what the oracle would reply about each row."""
    index = read_index(Path(files.index))
    match = read_truth_match(Path(files.truth_match))
    if not np.array_equal(match.prediction, index.prediction):
        raise SegloopError(f"{files.truth_match} and {files.index} hold different predictions. Run match_truth again.")
    world = build_world(index, read_tree(Path(files.tree)))
    is_good = good(match, files.config.t_iou, files.config.matching)
    place = np.searchsorted(index.prediction, world.prediction)
    return world, np.where(is_good[place], YES, NO).astype(np.int8)


def _ask_units(task: tuple[_Inputs, int, Integers]) -> Asked:
    files, seed, units = task
    world, truth = _load(files)
    return ask_until_done(make_policy(files.config), world, seed, lambda rows: truth[rows], units)


def _deal(world: World, units: Integers, workers: int) -> list[Integers]:
    """Deal units out to workers, largest first and always to the one with the least; none gets an empty hand."""
    size = np.full(len(units), len(world) - world.leaves, np.int64)
    if world.tree is not None:
        nodes = units >= 0
        size[nodes] = world.tree.size[units[nodes]]
    hands: list[list[int]] = [[] for _ in range(workers)]
    load = [0] * workers
    for place in np.argsort(-size, kind="stable"):
        hand = load.index(min(load))
        hands[hand].append(int(units[place]))
        load[hand] += int(size[place])
    return [np.array(hand, np.int64) for hand in hands if hand]


def _oracle_table(
    asked: Asked, decision: Decision, world: World, index: Index, config: AnnotationConfig, iteration: int
) -> pa.Table:
    count = len(asked.row)
    keys = index.mask_key[np.searchsorted(index.prediction, world.prediction[asked.row])]
    names = [key.tobytes() for key in keys]
    seconds = config.oracle.seconds
    return pa.table(
        {
            "schema": np.full(count, RECORD_SCHEMA, np.int32),
            "answer_id": _names(names, iteration),
            "prediction": world.prediction[asked.row],
            "mask_key": pa.array(names, pa.binary(32)),
            "annotator": pa.array(["oracle"] * count, pa.string()),
            "purpose": pa.array([PURPOSES[DECIDE]] * count, pa.string()),
            "reply": pa.array([REPLIES[reply] for reply in asked.reply.tolist()], pa.string()),
            "reason": pa.nulls(count, pa.string()),
            "t_iou": np.full(count, config.t_iou),
            "text_version": pa.nulls(count, pa.string()),
            "layout": pa.nulls(count, pa.string()),
            "default_used": np.zeros(count, np.bool_),
            "node": pa.array(asked.node, mask=asked.node < 0),
            "draw": asked.draw,
            "batch": asked.batch,
            "seconds": np.full(count, seconds),
            "price": np.full(count, seconds / 3600 * config.hourly_wage),
            "time": pa.nulls(count, pa.string()),
            "counted_at": _counted_at(asked.row, decision),
        },
        schema=ANSWER_SCHEMA,
    )


def _names(keys: list[bytes], iteration: int) -> list[str]:
    """Return an answer id for each key; two predictions with one mask count as two answers on it."""
    seen: dict[bytes, int] = {}
    names = []
    for key in keys:
        names.append(answer_id(key, "oracle", PURPOSES[DECIDE], iteration, seen.get(key, 0)))
        seen[key] = seen.get(key, 0) + 1
    return names


def _counted_at(rows: Integers, decision: Decision) -> pa.Array:
    """Return, for the answer on each row, the nodes whose decision counted it, as a list column."""
    order = np.lexsort((decision.counted_node, decision.counted_row))
    counted, nodes = decision.counted_row[order], decision.counted_node[order]
    begin, end = np.searchsorted(counted, rows), np.searchsorted(counted, rows, side="right")
    lists = [nodes[first:last] for first, last in zip(begin, end, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(end - begin)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([np.zeros(0, np.int64), *lists])))


# --- people's side ----------------------------------------------------------------------------------------------------


def annotate_people(
    *,
    tree: Path,
    index: Path,
    recorded: Path,
    answers: Path,
    verdicts: Path,
    config: AnnotationConfig,
    iteration: int,
    seed: int,
) -> None:
    """Replay people's answers through the policy that asked the questions, and judge every prediction.

    Answers are matched with masks by their mask key. Those without a matching mask are kept in the table, counted and
    reported as stale; they decide nothing.

    Parameters
    ----------
    recorded
        One JSON object a line, with the fields of the answer record; `mask_key` in hexadecimal digits.

    Raises
    ------
    SegloopError
        If a record is damaged (named by its line), or the policy still has questions.
    """
    rows = read_index(index)
    world = build_world(rows, read_tree(tree))
    records = read_records(recorded)
    matched = _by_mask_key(records, rows, world)
    log = _policy_answers(records, matched, world)
    decision = make_policy(config).step(world, log, policy_seed(seed, iteration))
    if not decision.done:
        raise SegloopError(
            f"{recorded} leaves {len(decision.question_row)} questions of {config.policy} open. "
            "Add their answers to that file, then run it again."
        )
    stale = int(np.count_nonzero(matched < 0))
    if stale:
        logger.warning("%d of %d answers are stale: no mask of this iteration has their key", stale, len(records))
    counted = _counted_at(matched, decision).to_pylist()
    for record, row, nodes in zip(records, matched.tolist(), counted, strict=True):
        record["counted_at"] = nodes
        if row >= 0:
            record["prediction"] = int(world.prediction[row])
    write_answers(answers, pa.Table.from_pylist(records, schema=ANSWER_SCHEMA))
    write_verdicts(verdicts, judge(rows, world, decision))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read answer records from a file with one JSON object a line.

    Returns
    -------
    Records with the columns of `ANSWER_SCHEMA` but `counted_at`; missing optional fields are None, `mask_key` is bytes.

    Raises
    ------
    SegloopError
        If a line is no valid record; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SegloopError(f"{path} cannot be read ({error}). Check the path annotation.answers_root.") from None
    lines = enumerate(text.splitlines(), start=1)
    return [_record(line, f"{path}, line {number}") for number, line in lines if line.strip()]


_REQUIRED = ("answer_id", "prediction", "mask_key", "annotator", "purpose", "reply")


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        given = json.loads(line)
    except json.JSONDecodeError as error:
        raise SegloopError(f"{where} is not valid JSON ({error}). Mend or remove that line.") from None
    if not isinstance(given, dict):
        raise SegloopError(f"{where} is not a JSON object. Mend or remove that line.")
    missing = [name for name in _REQUIRED if given.get(name) is None]
    if missing:
        raise SegloopError(f"{where} lacks {', '.join(missing)}. Mend or remove that line.")
    record = {name: given.get(name) for name in ANSWER_SCHEMA.names if name != "counted_at"}
    try:
        record["mask_key"] = bytes.fromhex(given["mask_key"])
        record["prediction"] = int(given["prediction"])
        pa.Table.from_pylist([record], schema=ANSWER_SCHEMA)
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        raise SegloopError(f"{where} is no answer record ({error}). Mend or remove that line.") from None
    if record["reply"] not in REPLIES.values() or record["purpose"] not in PURPOSES:
        raise SegloopError(
            f"{where}: reply {record['reply']!r} or purpose {record['purpose']!r} is unknown; replies are "
            f"{', '.join(REPLIES.values())}, purposes {', '.join(PURPOSES)}. Mend that line."
        )
    return record


def _by_mask_key(records: Iterable[dict[str, Any]], index: Index, world: World) -> Integers:
    """Return the row that each record is about, -1 where no mask has its key."""
    place = np.searchsorted(index.prediction, world.prediction)
    by_key: dict[bytes, dict[int, int]] = {}
    for row, key in enumerate(index.mask_key[place]):
        by_key.setdefault(key.tobytes(), {})[int(world.prediction[row])] = row
    rows = []
    for record in records:
        candidates = by_key.get(record["mask_key"], {})
        # Should two predictions have one mask, the one that was shown comes first.
        rows.append(candidates.get(record["prediction"], next(iter(candidates.values()), -1)))
    return np.array(rows, np.int64)


def _policy_answers(records: list[dict[str, Any]], rows: Integers, world: World) -> Answers:
    """Return the records that are about a mask of the world, as a policy sees them.

    The node of a record means something on the tree it was asked on only; a record of another prediction id comes from
    another run or iteration, so that its answer counts as one from outside the tree.
    """
    numbers = {word: number for number, word in REPLIES.items()}
    kept = [(record, row) for record, row in zip(records, rows.tolist(), strict=True) if row >= 0]
    return Answers(
        prediction=np.array([world.prediction[row] for _, row in kept], np.uint64),
        reply=np.array([numbers[record["reply"]] for record, _ in kept], np.int8),
        node=np.array([_node(record, row, world) for record, row in kept], np.int64),
        purpose=np.array([PURPOSES.index(record["purpose"]) for record, _ in kept], np.int8),
    )


def _node(record: dict[str, Any], row: int, world: World) -> int:
    nodes = 0 if world.tree is None else len(world.tree.size)
    node = record["node"]
    same = record["prediction"] == int(world.prediction[row])
    return node if same and node is not None and 0 <= node < nodes else -1
