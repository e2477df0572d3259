"""The threads in which the policy is asked again, and what remains is forecast, while people go on answering."""

import logging
import threading
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from labelmelite.loop.dealing import OpenQuestions
from labelmelite.loop.forecast import Forecast, forecast
from labelmelite.loop.iteration import Iteration
from segloop.annotation.people import Record
from segloop.annotation.policies.base import known_answers
from segloop.annotation.recorded import Reached, policy_seed, voiding

logger = logging.getLogger("labelmelite")

_TICK: Final = 5.0
"""Seconds between looks for leases that ran out."""
_FRESH: Final = 30
"""Answers after which what remains is forecast again."""


class Thinking:
    """What the policy makes of the records so far.

    Parameters
    ----------
    iteration
        What is asked about.
    records
        Returns all records so far.
    decided, ticked
        Called in the policy's thread: after each decision, and now and then while there is nothing to decide.
    largest
        Masks of an iteration up to which what remains is forecast.

    Attributes
    ----------
    reached, open
        The last decision and its questions.
    audited
        Whether an audit is under way or done: what it is about must stand.
    known : bool [N]
        Rows of the world whose answer is known.
    round
        How many times the policy was asked again.
    failure
        Why the policy cannot go on now.
    expected, expected_at
        What is to be expected, as told when so many answers had counted.
    """

    def __init__(
        self,
        iteration: Iteration,
        records: Callable[[], list[Record]],
        decided: Callable[[], None],
        ticked: Callable[[], None],
        largest: int,
    ) -> None:
        self.replay = iteration.replay()
        self.round = 0
        self.failure: str | None = None
        self.expected: Forecast | None = None
        self.expected_at = 0
        self._iteration, self._records, self._largest = iteration, records, largest
        self._decided, self._ticked = decided, ticked
        self._rows: dict[str, int] = {}
        self._turn = threading.Condition()
        self._wanted = self._done = 0
        self._ended = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Decide once, then go on in threads of its own."""
        self._decide()
        self._decided()
        for name, work in (("policy", self._run), ("forecast", self._look_forward)):
            self._threads.append(threading.Thread(target=work, name=f"labelmelite-{name}", daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """End the threads."""
        with self._turn:
            self._ended = True
            self._turn.notify_all()
        for thread in self._threads:
            thread.join()

    def ask(self) -> None:
        """Ask the policy again, soon."""
        with self._turn:
            self._wanted += 1
            self._turn.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until the policy has thought about all that it was asked for; tell whether it has."""
        with self._turn:
            return self._turn.wait_for(lambda: self.idle, seconds)

    @property
    def idle(self) -> bool:
        """Whether the policy has nothing to think about."""
        return self._done >= self._wanted

    def _run(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._ended or not self.idle, _TICK)
                target = self._wanted
                if self._ended:
                    return
            try:
                # What failed is tried again at each tick: a full disk has space again some time.
                if self._done < target or self.failure is not None:
                    self._decide()
                    self._decided()
                else:
                    self._ticked()
                self.failure = None
            except Exception as error:
                if self.failure != str(error):
                    logger.exception("the policy cannot go on; it is asked again every %s seconds", _TICK)
                self.failure = str(error)
            with self._turn:
                self._done = target
                self._turn.notify_all()

    def _decide(self) -> None:
        records, world = self._records(), self._iteration.world
        self.reached = self.replay(records, np.array([self._row(record) for record in records], np.int64))
        self.known: npt.NDArray[np.bool_] = known_answers(world, self.reached.answers).answered
        self.open = OpenQuestions.of(self.reached.decision, world)
        self.audited = self.open.audits or "audit" in [one["purpose"] for one in records[self._current(records) :]]
        self.round += 1

    @staticmethod
    def _current(records: list[Record]) -> int:
        """Return where the records begin that no voided audit lies behind."""
        places = voiding(records)
        return places[-1] + 1 if places else 0

    def _row(self, record: Record) -> int:
        name = record["answer_id"]
        if name not in self._rows:
            self._rows[name] = self.replay.masks.find(record["mask_key"], record["prediction"])
        return self._rows[name]

    # --- what remains

    def _look_forward(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._ended or self._is_stale(), _TICK)
                if self._ended:
                    return
            if self._is_stale():
                reached = self.reached
                self.expected, self.expected_at = self._forecast(reached), len(reached.rows)

    def _is_stale(self) -> bool:
        fits = len(self._iteration.world) <= self._largest and not self.reached.decision.done
        return fits and len(self.reached.rows) >= max(self.expected_at + _FRESH, 1.1 * self.expected_at)

    def _forecast(self, reached: Reached) -> Forecast | None:
        number = self._iteration.number
        seed = policy_seed(self._iteration.config.seed, number)
        try:
            return forecast(self._iteration.world, reached, number, seed, lambda: not self._ended)
        except Exception:
            # What remains is nice to know, and no reason to stop asking.
            logger.exception("what remains cannot be forecast")
            return None
