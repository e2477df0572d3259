"""From people's answers to a decision: the one way that the labelling server and the replay of a finished log share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import COUNTED_PURPOSES, OTHER, Answers
from segloop.annotation.people import Record, policy_answers
from segloop.annotation.policies import Decision, Policy, audits_itself, make_policy
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
from segloop.randomness import seed_of
from segloop.store.index import Index

Integers = npt.NDArray[np.int64]


def policy_seed(seed: int, iteration: int, voided: int = 0) -> int:
    """Return the seed of a policy's draws in an iteration of a run.

    Parameters
    ----------
    voided
        How many audits of the iteration changed answers have voided; each new audit draws anew.
    """
    return seed_of("annotate", seed, iteration, *(("voided", voided) if voided else ()))


def voiding(records: Sequence[Record]) -> list[int]:
    """Return the places of the answers that void an audit, ascending.

    An annotator's answer that differs from the one before on the same mask for the same purpose is a change. As long
    as no answer of an audit stands before it, it simply counts. Afterwards what the audit has shown has been seen, and
    set and bound would no longer be independent: the audit is void, and the next one begins behind the change.
    """
    latest: dict[tuple[bytes, str, str], str] = {}
    audited, found = False, []
    for place, record in enumerate(records):
        if record["purpose"] not in COUNTED_PURPOSES:
            continue
        key = (record["mask_key"], record["annotator"], record["purpose"])
        before = latest.get(key)
        latest[key] = record["reply"]
        if before is not None:
            if audited and before != record["reply"]:
                found.append(place)
                audited = False
        elif record["purpose"] == "audit":
            audited = True
    return found


def spent(config: AnnotationConfig, voided: int) -> AnnotationConfig:
    """Return a configuration whose audits may spend what `voided` audits have left of delta.

    Iteration i spends delta 2^-i; each voided audit of this iteration or an earlier one halves that once more, as if it
    had been an iteration, so that all claims of a run still hold together.
    """
    if not voided:
        return config
    audit = config.audit.model_copy(update={"delta": config.audit.delta * 2.0**-voided})
    return config.model_copy(update={"audit": audit})


class MaskRows:
    """Finds the rows of the world by mask key.

    Parameters
    ----------
    index, world
        Of one iteration.
    """

    def __init__(self, index: Index, world: World) -> None:
        self._prediction = world.prediction
        keys = np.ascontiguousarray(index.mask_key[np.searchsorted(index.prediction, world.prediction)])
        # The first eight bytes find the few candidates, all 32 decide.
        heads = keys[:, :8].copy().view(np.uint64)[:, 0]
        self._order = np.argsort(heads, kind="stable")
        self._heads, self._keys = heads[self._order], keys

    def __getitem__(self, row: int) -> bytes:
        """Return the mask key of a row."""
        return bytes(self._keys[row].tobytes())

    def find(self, key: bytes, prediction: int) -> int:
        """Return the row of a mask, -1 where the world has none; of equal masks that of the prediction comes first."""
        head = np.frombuffer(key, np.uint64, 1)[0]
        first = int(np.searchsorted(self._heads, head))
        found = -1
        while first < len(self._heads) and self._heads[first] == head:
            row = int(self._order[first])
            if self[row] == key:
                if int(self._prediction[row]) == prediction:
                    return row
                found = row if found < 0 else found
            first += 1
        return found

    def match(self, records: Iterable[Record]) -> Integers:
        """Return the row of the world that each record is about, int64, -1 where no mask has its key."""
        return np.array([self.find(record["mask_key"], record["prediction"]) for record in records], np.int64)


@dataclass(frozen=True)
class Reached:
    """What records have led to.

    Attributes
    ----------
    decision
        Of the policy.
    answers
        What the policy was told.
    rows : int64 [R]
        Row of the world of each record, -1 for none.
    config
        As configured, but with what voided audits have left of delta.
    voided
        Audits of this iteration that were voided.
    """

    decision: Decision
    answers: Answers
    rows: Integers
    config: AnnotationConfig
    voided: int


class Replay:
    """Decides from records, again and again as they become more; the same records always give the same decision.

    Parameters
    ----------
    earlier
        The records of each earlier iteration. Answers of theirs on masks of this world are known from the start, but
        for those that left their mask undecided; audits of theirs that were voided have spent their part of delta.
    """

    def __init__(
        self,
        world: World,
        index: Index,
        config: AnnotationConfig,
        iteration: int,
        seed: int,
        earlier: Sequence[Sequence[Record]] = (),
    ) -> None:
        self.world, self.masks = world, MaskRows(index, world)
        self._config, self._iteration, self._seed = config, iteration, seed
        self._before = sum(len(voiding(records)) for records in earlier)
        self.known = self._known([record for records in earlier for record in records])
        self._policy: tuple[int, Policy] | None = None

    def __call__(self, records: list[Record], rows: Integers | None = None) -> Reached:
        """Return what records have led to; `rows`, where they were matched before."""
        rows = self.masks.match(records) if rows is None else rows
        voids = voiding(records)
        voided = len(voids)
        until = voids[-1] + 1 if voids else 0
        # What a voided audit was told is known, and tells nothing about any other mask.
        counted = [
            record | {"purpose": "decide"} if place < until and record["purpose"] == "audit" else record
            for place, record in enumerate(records)
        ]
        config = spent(self._config, self._before + voided)
        answers = policy_answers(counted, rows, self.world, config.audit.votes)
        log = Answers.join([self.known, answers])
        # Policies that follow every one of their draws begin anew; an audit behind another one goes on with its draws.
        key = policy_seed(self._seed, self._iteration, voided if audits_itself(config) else 0)
        return Reached(self._policy_of(config, voided).step(self.world, log, key), log, rows, config, voided)

    def _policy_of(self, config: AnnotationConfig, voided: int) -> Policy:
        """Return the policy, the same object while it stays the same: policies remember what they have worked out."""
        if self._policy is None or self._policy[0] != voided:
            self._policy = (voided, make_policy(config, self._iteration))
        return self._policy[1]

    def _known(self, records: list[Record]) -> Answers:
        counted = [record for record in records if record["purpose"] in COUNTED_PURPOSES]
        about = [record | {"purpose": "decide", "node": None} for record in counted]
        answers = policy_answers(about, self.masks.match(about), self.world, 1)
        said = answers.reply != OTHER
        return Answers(answers.prediction[said], answers.reply[said], answers.node[said], answers.purpose[said])
