"""Questions, answers and verdicts of an iteration, answered by the oracle or replayed from people's answers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segloop.annotation.annotators import UNSAID, Annotators, Given
from segloop.annotation.answers import (
    ANSWER_SCHEMA,
    COUNTED_PURPOSES,
    NO_REASONS,
    PURPOSES,
    RECORD_SCHEMA,
    REPLIES,
    Answers,
    answer_id,
    write_answers,
)
from segloop.annotation.certificates import delta_of_iteration, write_certificates
from segloop.annotation.edits import judge_edited, read_edits, write_edited
from segloop.annotation.oracle import good, read_truth_match
from segloop.annotation.people import Record, check_complete, read_gold, read_records
from segloop.annotation.policies import Decision, Policy, make_policy
from segloop.annotation.probabilities import probability_path, read_probabilities
from segloop.annotation.quality import GOLD_SHARE, claim, measure_annotators
from segloop.annotation.recorded import Replay, policy_seed
from segloop.annotation.verdicts import DUPLICATE, Verdicts, write_verdicts
from segloop.annotation.world import World, build_world
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.files import fingerprint, write_json
from segloop.store.index import Index, read_index
from segloop.store.reduced import read_reduced
from segloop.store.tree import read_tree
from segloop.workers import HERE, Workplace, worker_map

logger = logging.getLogger("segloop.annotation")

Integers = npt.NDArray[np.int64]
AnswerRows = Callable[[Integers], npt.NDArray[np.int8]]
Watch = Callable[[Decision], None]

ANNOTATORS_SCHEMA: Final = 1


@dataclass(frozen=True)
class Asked:
    """Questions that were asked and their replies, one row each.

    Attributes
    ----------
    row, node, draw : int64 [A]
        As in `Decision`.
    batch : int64 [A]
        The round of questions, from 0, counted in each unit by itself; rounds about all units come behind.
    purpose, reply : int8 [A]
    """

    row: Integers
    node: Integers
    draw: Integers
    batch: Integers
    purpose: npt.NDArray[np.int8]
    reply: npt.NDArray[np.int8]

    def answers(self, world: World) -> Answers:
        """Return these answers as a policy sees them."""
        return Answers(world.prediction[self.row], self.reply, self.node, self.purpose)

    @staticmethod
    def join(parts: list["Asked"]) -> "Asked":
        """Return all parts in the order of round, node and draw, which does not depend on how work was dealt out."""
        nothing = np.zeros(0, np.int64)
        row, node, draw, batch = (
            np.concatenate([nothing, *(getattr(part, name) for part in parts)])
            for name in ("row", "node", "draw", "batch")
        )
        purpose, reply = (
            np.concatenate([np.zeros(0, np.int8), *(getattr(part, name) for part in parts)])
            for name in ("purpose", "reply")
        )
        order = np.lexsort((draw, node, batch))
        return Asked(row[order], node[order], draw[order], batch[order], purpose[order], reply[order])


def ask_until_done(
    policy: Policy,
    world: World,
    seed: int,
    answer: AnswerRows | Annotators,
    units: Integers,
    watch: Watch | None = None,
) -> Asked:
    """Ask round after round until the policy has no more questions about these units.

    Each step goes on at the units that waited, so that what is decided is not walked through again; that changes
    nothing, because a policy's step at a unit depends on the answers alone.

    Parameters
    ----------
    answer
        Takes rows, returns `YES`, `NO` or `OTHER` for each; or simulated people, whose answers depend on what a mask is
        asked for, too.
    watch
        Is shown each decision before its questions are asked; it holds what was decided at the units of its step alone.
    """
    rounds: list[Asked] = []
    known: list[Answers] = []
    while len(units):
        decision = policy.step(world, Answers.join(known), seed, units)
        if watch is not None:
            watch(decision)
        if decision.done:
            break
        rounds.append(_ask(decision, len(rounds), answer))
        known.append(rounds[-1].answers(world))
        units = decision.waiting
    return Asked.join(rounds)


def ask_the_rest(
    policy: Policy,
    world: World,
    seed: int,
    answer: AnswerRows | Annotators,
    before: Asked,
    watch: Watch | None = None,
) -> tuple[Asked, Decision]:
    """Ask what concerns all units together, after `before`; return all that was asked and the last decision.

    Parameters
    ----------
    watch
        Is shown each decision before its questions are asked.

    Raises
    ------
    AssertionError
        If a policy asks again what it was told.
    """
    rounds, known = [before], [before.answers(world)]
    first = int(before.batch.max(initial=-1)) + 1
    while True:
        decision = policy.step(world, Answers.join(known), seed)
        if watch is not None:
            watch(decision)
        if decision.done:
            return Asked.join(rounds), decision
        asked = _ask(decision, first + len(rounds) - 1, answer)
        if len(rounds) > len(world) + 1:
            raise AssertionError(f"{policy} asks again what it was told")
        rounds.append(asked)
        known.append(asked.answers(world))


def _ask(decision: Decision, number: int, answer: AnswerRows | Annotators) -> Asked:
    rows, purpose = decision.question_row, decision.question_purpose
    reply = answer.reply(rows, purpose) if isinstance(answer, Annotators) else answer(rows)
    return Asked(
        row=rows,
        node=decision.question_node,
        draw=decision.question_draw,
        batch=np.full(len(rows), number, np.int64),
        purpose=purpose,
        reply=reply,
    )


def annotate_oracle(
    *,
    tree: Path,
    index: Path,
    reduced: Path,
    truth_match: Path,
    answers: Path,
    verdicts: Path,
    certificates: Path,
    annotators: Path,
    config: AnnotationConfig,
    iteration: int,
    seed: int,
    agreement: Path | None = None,
    where: Workplace = HERE,
) -> None:
    """Ask simulated people until the policy is done; the same bytes for any `config.workers`.

    Parameters
    ----------
    tree, index, reduced, truth_match
        Inputs of this iteration.
    answers, verdicts, certificates, annotators
        The files to write; verdicts hold one row for every prediction of the index, certificates what audits showed,
        annotators how well those who answered did.
    seed
        The run's seed; draws depend on it and on the iteration.
    agreement
        What `distillation` reads its probabilities from.
    where
        Where the workers run, if there are several.

    Raises
    ------
    SegloopError
        If inputs are missing, damaged or of different iterations.
    """
    probability = probability_path(config, iteration, agreement)
    files = _Inputs(
        str(tree),
        str(index),
        str(reduced),
        str(truth_match),
        None if probability is None else str(probability),
        _fingerprint(tree, index, reduced, truth_match, probability),
        config,
        seed,
    )
    try:
        world, people = _load(files)
        policy, key = make_policy(config, iteration), policy_seed(seed, iteration)
        units = policy.units(world)
        tasks = [(files, key, iteration, part) for part in _deal(world, units, config.workers)]
        with worker_map(config.workers, where=where) as run:
            asked = Asked.join(run(_ask_units, tasks))
        asked, _ = ask_the_rest(policy, world, key, people, asked)
    finally:
        _load.cache_clear()
    # The verdicts come from a replay of the whole log: what is written is what anybody gets from these answers.
    decision = make_policy(config, iteration).step(world, asked.answers(world), key)
    if not decision.done:
        raise AssertionError(f"replaying its own answers, {config.policy} asks {len(decision.question_row)} more")
    rows = read_index(index)
    table, gold = _oracle_table(asked, decision, world, rows, people, config, iteration)
    write_answers(answers, table)
    write_verdicts(verdicts, judge(rows, world, decision))
    _write_what_is_claimed(certificates, annotators, decision, table, gold, config, iteration)
    logger.info("%d questions, %d of %d accepted", len(asked.row), np.sum(decision.verdict == 1), len(world))


def judge(index: Index, world: World, decision: Decision) -> Verdicts:
    """Return the verdict of every prediction of the index; duplicates inherit theirs."""
    verdict, reason = index.inherited.astype(np.int8), np.zeros(len(index), np.int8)
    node = np.full(len(index), -1, np.int64)
    reason[index.duplicate_of != 0] = DUPLICATE
    certificate = np.full(len(index), -1, np.int16)
    place = np.searchsorted(index.prediction, world.prediction)
    verdict[place], reason[place], node[place] = decision.verdict, decision.reason, decision.node
    certificate[place] = decision.certificate
    ids = tuple(one.certificate_id for one in decision.certificates)
    return Verdicts(index.prediction, verdict, reason, node, certificate, ids)


def _write_what_is_claimed(
    certificates: Path,
    annotators: Path,
    decision: Decision,
    answers: pa.Table,
    gold: Mapping[bytes, bool],
    config: AnnotationConfig,
    iteration: int,
) -> None:
    """Write what audits showed, less what the annotators' errors take from it, and how well the annotators did."""
    delta = GOLD_SHARE * delta_of_iteration(config.audit.delta, iteration)
    bound, measured = measure_annotators(answers, gold, config.audit.votes, delta)
    write_certificates(certificates, claim(decision.certificates, 0.0 if bound is None else bound.upper))
    write_json(
        annotators,
        {
            "schema": ANNOTATORS_SCHEMA,
            "gold": None if bound is None else asdict(bound),
            "annotators": measured,
        },
    )


# --- the oracle's side ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inputs:
    """What a worker reads; the fingerprint keeps it from taking a replaced file for the one it has in memory."""

    tree: str
    index: str
    reduced: str
    truth_match: str
    probability: str | None
    fingerprint: str
    config: AnnotationConfig = field(hash=False)
    seed: int


def _fingerprint(*paths: Path | None) -> str:
    return " ".join(fingerprint(path / "zarr.json" if path.is_dir() else path) for path in paths if path is not None)


@lru_cache(maxsize=1)
def _load(files: _Inputs) -> tuple[World, Annotators]:
    """Return the world and who answers questions about it."""
    index = read_index(Path(files.index))
    match = read_truth_match(Path(files.truth_match))
    if not np.array_equal(match.prediction, index.prediction):
        raise SegloopError(f"{files.truth_match} and {files.index} hold different predictions. Run match_truth again.")
    probability = None if files.probability is None else read_probabilities(Path(files.probability), len(index))
    world = build_world(index, read_tree(Path(files.tree)), read_reduced(Path(files.reduced)), probability)
    is_good = good(match, files.config.t_iou, files.config.matching)
    place = np.searchsorted(index.prediction, world.prediction)
    return world, Annotators.of(files.config, files.seed, world.prediction, is_good[place])


def _ask_units(task: tuple[_Inputs, int, int, Integers]) -> Asked:
    files, seed, iteration, units = task
    world, people = _load(files)
    return ask_until_done(make_policy(files.config, iteration), world, seed, people, units)


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


@dataclass(frozen=True)
class _Part:
    """Answers and the questions that they are about; the arrays hold one entry a question."""

    row: Integers
    node: Integers
    draw: Integers
    batch: Integers
    purpose: npt.NDArray[np.int8]
    given: Given

    @staticmethod
    def apart(row: Integers, purpose: str, batch: int, given: Given) -> "_Part":
        """Return answers that measure those who give them, shown with the last batch."""
        count = len(row)
        return _Part(
            row=row,
            node=np.full(count, -1, np.int64),
            draw=np.arange(count, dtype=np.int64),
            batch=np.full(count, batch, np.int64),
            purpose=np.full(count, PURPOSES.index(purpose), np.int8),
            given=given,
        )


def _oracle_table(
    asked: Asked,
    decision: Decision,
    world: World,
    index: Index,
    people: Annotators,
    config: AnnotationConfig,
    iteration: int,
) -> tuple[pa.Table, dict[bytes, bool]]:
    """Return every single answer, and the truth of the masks of gold questions by mask key."""
    given = people.ask(asked.row, asked.purpose)
    parts = [_Part(asked.row, asked.node, asked.draw, asked.batch, asked.purpose, given)]
    last = int(asked.batch.max(initial=0))
    gold: dict[bytes, bool] = {}
    if config.gold is not None:
        rows, answers = people.gold(len(asked.row) // config.gold, iteration)
        parts.append(_Part.apart(rows, "gold", last, answers))
        gold = dict(zip(_keys(rows, world, index), people.truth[rows].tolist(), strict=True))
    if config.repeats is not None:
        rows, answers = people.repeats(asked.row, given, len(asked.row) // config.repeats, iteration)
        parts.append(_Part.apart(rows, "repeat", last, answers))
    tables = [_table_of(part, decision, world, index, people.names, config) for part in parts]
    table = pa.concat_tables(tables).combine_chunks()
    names = pa.array(_answer_ids(table, iteration), pa.string())
    return table.set_column(table.schema.get_field_index("answer_id"), "answer_id", names), gold


def _keys(rows: Integers, world: World, index: Index) -> list[bytes]:
    keys = index.mask_key[np.searchsorted(index.prediction, world.prediction[rows])]
    return [key.tobytes() for key in keys]


def _table_of(
    part: _Part, decision: Decision, world: World, index: Index, names: list[str], config: AnnotationConfig
) -> pa.Table:
    """Return the rows of answers.parquet, without the names of the answers."""
    given, count = part.given, len(part.given)
    row, node, purpose = part.row[given.question], part.node[given.question], part.purpose[given.question]
    return pa.table(
        {
            "schema": np.full(count, RECORD_SCHEMA, np.int32),
            "answer_id": pa.nulls(count, pa.string()),
            "prediction": world.prediction[row],
            "mask_key": pa.array(_keys(row, world, index), pa.binary(32)),
            "annotator": pa.array([names[number] for number in given.annotator.tolist()], pa.string()),
            "purpose": pa.array([PURPOSES[number] for number in purpose.tolist()], pa.string()),
            "reply": pa.array([REPLIES[reply] for reply in given.reply.tolist()], pa.string()),
            "reason": pa.array([None if n == UNSAID else NO_REASONS[n] for n in given.reason.tolist()], pa.string()),
            "t_iou": np.full(count, config.t_iou),
            "text_version": pa.nulls(count, pa.string()),
            "layout": pa.nulls(count, pa.string()),
            "default_used": np.zeros(count, np.bool_),
            "node": pa.array(node, mask=node < 0),
            "draw": part.draw[given.question],
            "batch": part.batch[given.question],
            "seconds": given.seconds,
            "price": given.seconds / 3600 * config.hourly_wage,
            "time": pa.nulls(count, pa.string()),
            "counted_at": _counted_at(np.where(_counts(purpose), row, -1), decision),
        },
        schema=ANSWER_SCHEMA,
    )


def _counts(purpose: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Return which answers say something about a mask, and not about who answered."""
    return np.isin(purpose, [PURPOSES.index(word) for word in COUNTED_PURPOSES])


def _answer_ids(table: pa.Table, iteration: int) -> list[str]:
    """Return an id for each answer; two predictions with one mask count as two answers on it."""
    seen: dict[tuple[bytes, str, str], int] = {}
    names = []
    columns = (table.column(name).to_pylist() for name in ("mask_key", "annotator", "purpose"))
    for key, annotator, purpose in zip(*columns, strict=True):
        number = seen.get((key, annotator, purpose), 0)
        names.append(answer_id(key, annotator, purpose, iteration, number))
        seen[key, annotator, purpose] = number + 1
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
    reduced: Path,
    recorded: Path,
    answers: Path,
    verdicts: Path,
    certificates: Path,
    annotators: Path,
    config: AnnotationConfig,
    iteration: int,
    seed: int,
    agreement: Path | None = None,
    gold: Path | None = None,
    earlier: Sequence[Path] = (),
    edits: Path | None = None,
    edited: Path | None = None,
) -> None:
    """Replay people's answers through the policy that asked the questions, and judge every prediction.

    Answers are matched with masks by their mask key. Those without a matching mask are kept in the table, counted and
    reported as stale; they decide nothing. Of several annotators' answers to one question the majority counts.

    Parameters
    ----------
    recorded
        One JSON object a line, with the fields of the answer record; `mask_key` in hexadecimal digits.
    agreement
        What `distillation` reads its probabilities from.
    gold
        Truth of the masks of gold questions, see `segloop.annotation.people.read_gold`.
    earlier
        `recorded` of the earlier iterations, in their order: what they say of masks of this one is known.
    edits
        Masks that people have mended, see `segloop.annotation.edits.read_edits`; None where there are none.
    edited
        edited.json, the file to write with those that count; None: none is written.

    Raises
    ------
    SegloopError
        If a record is damaged (named by its line), or the policy still has questions.
    """
    rows = read_index(index)
    path = probability_path(config, iteration, agreement)
    probability = None if path is None else read_probabilities(path, len(rows))
    world = build_world(rows, read_tree(tree), read_reduced(reduced), probability)
    for path in (recorded, *earlier):
        check_complete(path)
    records, known = read_records(recorded), read_gold(gold)
    replay = Replay(world, rows, config, iteration, seed, [read_records(path) for path in earlier])
    reached = replay(records)
    decision, matched, config = reached.decision, reached.rows, reached.config
    if not decision.done:
        votes = f" ({config.audit.votes} annotators for each of an audit)" if config.audit.votes > 1 else ""
        raise SegloopError(
            f"{recorded} leaves {len(decision.question_row)} questions of {config.policy} open. "
            f"Add their answers{votes} to that file, then run it again."
        )
    about_masks = np.array([record["purpose"] in COUNTED_PURPOSES for record in records], np.bool_)
    _warn(records, about_masks & (matched < 0), known)
    counted = _counted_at(np.where(about_masks, matched, -1), decision).to_pylist()
    for record, row, nodes in zip(records, matched.tolist(), counted, strict=True):
        record["counted_at"] = nodes
        if record["price"] is None and record["seconds"] is not None:
            record["price"] = record["seconds"] / 3600 * config.hourly_wage
        if row >= 0:
            record["prediction"] = int(world.prediction[row])
    table = pa.Table.from_pylist(records, schema=ANSWER_SCHEMA)
    mended = [] if edits is None else read_edits(edits)
    judged, kept = judge_edited(judge(rows, world, decision), rows, mended)
    write_answers(answers, table)
    if edited is not None:
        write_edited(edited, kept, mended, config.hourly_wage)
    write_verdicts(verdicts, judged)
    _write_what_is_claimed(certificates, annotators, decision, table, known, config, iteration)


def _warn(records: list[Record], stale: npt.NDArray[np.bool_], gold: Mapping[bytes, bool]) -> None:
    if stale.any():
        logger.warning("%d of %d answers are stale: no mask of this iteration has their key", stale.sum(), len(records))
    unknown = sum(record["purpose"] == "gold" and record["mask_key"] not in gold for record in records)
    if unknown:
        logger.warning("%d gold answers are about masks that gold.json does not hold; they measure nobody", unknown)
