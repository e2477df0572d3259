"""The tree as a person walks through it: what was asked of a cluster, and what was decided about its masks."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from labelmelite.errors import ApiError
from labelmelite.loop import showing
from labelmelite.loop.iteration import Iteration
from segloop.annotation.answers import COUNTED_PURPOSES, read_answers
from segloop.annotation.certificates import Certificate, read_certificates
from segloop.annotation.people import Record
from segloop.annotation.verdicts import ACCEPTED, CLUSTER, REJECTED, WORDS, read_verdicts
from segloop.randomness import generator

if TYPE_CHECKING:
    from labelmelite.loop.session import LoopSession

Rows = npt.NDArray[np.int64]

_ANSWERS: Final = 300
"""Answers of a node that are shown, newest first."""


@dataclass(frozen=True)
class Judged:
    """What is known and decided of the masks of a world so far.

    Attributes
    ----------
    verdict, reason : int8 [N]
    node : int64 [N]
    certificate : int64 [N]
        Position in `certificates`, -1 for none.
    records, rows
        Answers that say something about a mask, and the row of each.
    asked
        Nodes whose answers were counted.
    """

    verdict: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int8]
    node: Rows
    certificate: Rows
    certificates: tuple[Certificate, ...]
    records: list[Record]
    rows: Rows
    asked: frozenset[int]


def judged(session: "LoopSession") -> Judged:
    """Return the verdicts of an iteration: those of the run once it has gone on, else what the answers lead to now."""
    iteration = session.iteration
    if iteration.taken:
        return _of_run(iteration)
    with session.lock:
        reached, records = session.thinking.reached, session.records()
    decision = reached.decision
    rows = session.replay.masks.match(records)
    kept = [place for place, one in enumerate(records) if one["purpose"] in COUNTED_PURPOSES and rows[place] >= 0]
    return Judged(
        verdict=decision.verdict,
        reason=decision.reason,
        node=decision.node,
        certificate=decision.certificate.astype(np.int64),
        certificates=decision.certificates,
        records=[records[place] for place in kept],
        rows=rows[np.array(kept, np.int64)],
        asked=frozenset(np.unique(decision.counted_node).tolist()),
    )


def _of_run(iteration: Iteration) -> Judged:
    world, folder = iteration.world, iteration.folder
    verdicts = read_verdicts(folder / "verdicts.parquet")
    place = np.searchsorted(verdicts.prediction, world.prediction)
    records = read_answers(folder / "answers.parquet").to_pylist()
    rows = world.rows_of(np.array([one["prediction"] for one in records], np.uint64))
    keys = iteration.index.mask_key[np.searchsorted(iteration.index.prediction, world.prediction)]
    kept = [
        number
        for number, one in enumerate(records)
        if rows[number] >= 0 and one["purpose"] in COUNTED_PURPOSES and keys[rows[number]].tobytes() == one["mask_key"]
    ]
    names = {name: number for number, name in enumerate(verdicts.certificate_ids)}
    found = {one.certificate_id: one for one in read_certificates(folder / "certificates.json")}
    return Judged(
        verdict=verdicts.verdict[place],
        reason=verdicts.reason[place],
        node=verdicts.node[place],
        certificate=verdicts.certificate[place].astype(np.int64),
        certificates=tuple(found[name] for name in names if name in found),
        records=[records[number] for number in kept],
        rows=rows[np.array(kept, np.int64)],
        asked=frozenset(node for one in records for node in one["counted_at"] or ()),
    )


class Forest:
    """Looks at nodes; made anew when more is known.

    Parameters
    ----------
    known
        See `judged`.
    """

    def __init__(self, session: "LoopSession", known: Judged) -> None:
        self._session, self._known = session, known
        self._world, self._tree = session.iteration.world, session.iteration.tree
        self._parent = _parents(self._tree)
        order = np.asarray(self._tree.order, np.int64)
        verdict = known.verdict[: self._tree.n][order]
        self._accepted, self._rejected = _sums(verdict == ACCEPTED), _sums(verdict == REJECTED)
        reply = np.full(len(self._world), -1, np.int8)
        for record, row in zip(known.records, known.rows.tolist(), strict=True):
            reply[row] = record["reply"] == "yes"
        self._reply = reply
        self._answered, self._yes = _sums(reply[: self._tree.n][order] >= 0), _sums(reply[: self._tree.n][order] == 1)
        cluster = np.flatnonzero(known.reason == CLUSTER)
        self._decided = dict(zip(known.node[cluster].tolist(), known.verdict[cluster].tolist(), strict=True))
        self._answers = np.argsort(self._world.position[known.rows[known.rows < self._tree.n]], kind="stable")

    def roots(self) -> list[dict[str, Any]]:
        """Return the category nodes; the root where the tree mixes categories."""
        if self._tree.n == 0:
            return []
        nodes = np.asarray(self._tree.category_node, np.int64).tolist() or [int(self._tree.root)]
        return [self.node(node) for node in nodes]

    def node(self, node: int) -> dict[str, Any]:
        """Return a node of docs/labelmelite-api.md."""
        first, size = int(self._tree.start[node]), int(self._tree.size[node])
        accepted, rejected, answered, yes = (
            int(sums[first + size] - sums[first])
            for sums in (self._accepted, self._rejected, self._answered, self._yes)
        )
        category = self._category(node)
        return {
            "id": node,
            "size": size,
            "height": 0.0 if node < self._tree.n else float(self._tree.height[node - self._tree.n]),
            "category": None if category is None else self._session.iteration.categories.get(category, str(category)),
            "category_id": category,
            "accepted": accepted,
            "rejected": rejected,
            "undecided": size - accepted - rejected,
            "answered": answered,
            "yes": yes,
            "verdict": self._verdict(node, size, accepted, rejected, answered),
            "depth": len(self._path(node)),
        }

    def look(self, node: int, sample: int, offset: int, names: bool) -> dict[str, Any]:
        """Return a node with everything around it.

        Parameters
        ----------
        sample, offset
            Members to show, in a fixed random order.
        names
            Whether it is shown who answered.

        Raises
        ------
        ApiError
            If the tree has no such node.
        """
        if not 0 <= node < len(self._tree.size):
            raise ApiError("not_found", "The tree has no such cluster.")
        path = self._path(node)
        members = np.sort(np.asarray(self._tree.members(node), np.int64))
        shown = generator("look", node).permutation(members)[offset : offset + sample]
        children = (
            [] if self._tree.is_leaf(node) else sorted(self._tree.children(node), key=lambda one: -self._size(one))
        )
        return {
            "node": self.node(node),
            "parent": self.node(path[-1]) if path else None,
            "path": [self.node(one) for one in path],
            "children": [self.node(one) for one in children],
            "answers": self._answers_of(node, names),
            "certificate": self._certificate(members),
            "sample": self.items(shown),
        }

    def items(self, rows: Rows) -> list[dict[str, Any]]:
        """Return rows of the world as items, with what is known and decided of them."""
        world, categories = self._world, self._session.iteration.categories
        found = self._session.pictures.many(world.prediction[rows].tolist())
        items = []
        for row, picture in zip(rows.tolist(), found, strict=True):
            category = int(world.category[row])
            name = f"{showing.FREE}{world.prediction[row]}"
            item = showing.item_of(name, picture, categories.get(category, str(category)), float(world.score[row]))
            verdict, reply = WORDS[int(self._known.verdict[row])], int(self._reply[row])
            item |= {"verdict": verdict, "reply": None if reply < 0 else ("no", "yes")[reply]}
            items.append(item | {"score": round(float(world.score[row]), 4)})
        return items

    def _size(self, node: int) -> int:
        return int(self._tree.size[node])

    def _category(self, node: int) -> int | None:
        members = self._tree.members(node)
        kinds = self._world.category[[int(members[0]), int(members[-1])]]
        within = not len(self._tree.category_id) or self._size(node) <= max(
            int(self._tree.size[one]) for one in self._tree.category_node
        )
        return int(kinds[0]) if kinds[0] == kinds[1] and within and len(self._tree.category_id) else None

    def _path(self, node: int) -> list[int]:
        path = []
        while self._parent[node] >= 0:
            node = int(self._parent[node])
            path.append(node)
        return path[::-1]

    def _verdict(self, node: int, size: int, accepted: int, rejected: int, answered: int) -> str:
        if node in self._decided:
            return WORDS[self._decided[node]]
        if accepted + rejected == size:
            return "split" if accepted and rejected else ("accepted" if accepted else "rejected")
        if node in self._known.asked:
            return "split"
        return "asked" if answered else "undecided"

    def _answers_of(self, node: int, names: bool) -> list[dict[str, Any]]:
        first, size = int(self._tree.start[node]), int(self._tree.size[node])
        inside = [
            (record, row)
            for record, row in zip(self._known.records, self._known.rows.tolist(), strict=True)
            if row < self._tree.n and first <= self._world.position[row] < first + size
        ][: -_ANSWERS - 1 : -1]
        items = self.items(np.array([row for _, row in inside], np.int64))
        return [
            {
                "item": item,
                "reply": record["reply"],
                "reason": record["reason"],
                "annotator": record["annotator"] if names else None,
                "time": record["time"],
                "purpose": record["purpose"],
            }
            for (record, _), item in zip(inside, items, strict=True)
        ]

    def _certificate(self, members: Rows) -> dict[str, Any] | None:
        """Return what the audit showed of the set that most of the members were accepted with."""
        places = self._known.certificate[members]
        counts = Counter(places[places >= 0].tolist())
        if not counts:
            return None
        place = counts.most_common(1)[0][0]
        return asdict(self._known.certificates[place]) if place < len(self._known.certificates) else None


def _parents(tree: Any) -> Rows:
    parent = np.full(len(tree.size), -1, np.int64)
    inner = tree.n + np.arange(len(tree.left), dtype=np.int64)
    parent[np.asarray(tree.left, np.int64)] = inner
    parent[np.asarray(tree.right, np.int64)] = inner
    return parent


def _sums(flags: npt.NDArray[np.bool_]) -> Rows:
    return np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
