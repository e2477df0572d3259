"""Sequential audits of a finite set that are exact: when to stop asking, and whether to accept.

The set, its answers and the claim are those of `segloop.annotation.certificates`: K known good masks, u unanswered ones
of which B are bad, fresh answers drawn uniformly without replacement from the u. After n answers with x bad ones the
claim "the K + u - x masks that are left have the target precision" is false iff B - x > (1 - target)(K + u - x).

A design is a table of two limits: after n answers accept if x is at most `accept[n]`, reject if it is at least
`reject[n]`, ask on otherwise. Its probability of accepting a false claim is summed up exactly, for every B, over the
hypergeometric law of the answers; a design is used only if the largest of these probabilities is at most delta. A
belief about B says which design is cheap and how long asking is worth its price. It has no part in the claim: a wrong
belief costs questions.

The acceptance limits spend delta over the looks in proportion to sqrt(n / T) with T the horizon (K. K. G. Lan and D. L.
DeMets, Biometrika 70(3), 1983); the rejection limits follow from backward induction under the belief.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from segloop.annotation.certificates import bad_limit

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Outcome = Literal["accept", "reject", "ask"]

NEVER: Final = 1 << 30
"""A rejection limit that no count reaches."""
HORIZONS: Final = (20, 35, 55, 80, 115, 165, 230, 320, 450, 620, 860, 1200, 1700)
"""Largest numbers of questions that are tried."""
_FIRST_HORIZON: Final = 5
_EXPONENT: Final = 0.5
_SEARCH_POINTS, _FINAL_POINTS = 12, 60
"""Numbers of bad masks that stand for all while limits are computed."""
_SHRINK: Final = (1.0, 0.99, 0.97, 0.94, 0.9, 0.8, 0.6)
"""Shares of delta that are spent on the points until every number of bad masks keeps to delta."""
_ROUNDING: Final = 1e-15
_TOGETHER: Final = 25
"""Answers that are counted at once: the number of ways to place very many would overflow."""
_BLOCK: Final = 8
"""Counts that are looked at together: limits rise by few from look to look."""


@dataclass(frozen=True, eq=False)
class Design:
    """When an audit stops and what it then says.

    Attributes
    ----------
    accept, reject : int64 [T + 1]
        Accept after n answers if at most `accept[n]` of them are bad (-1: never), reject if at least `reject[n]` are
        (`NEVER`: never). T is the largest number of questions; there everything that is not accepted is rejected.
    """

    accept: Integers
    reject: Integers
    unknown: int
    """Masks that the questions are drawn from."""
    known_good: int
    """Further masks of the set, known to be good."""
    target: float
    """The precision that is claimed."""
    delta: float
    """The probability of accepting a false claim is at most this, whatever the number of bad masks."""
    step: int
    """Limits are looked at after every so many answers."""
    index: int
    """Position of the horizon in `HORIZONS`: where the search for a similar set may begin."""
    exact: bool
    """Whether every number of bad masks was checked. A design that was not is good enough to compare plans only."""
    passes: float
    """Probability of acceptance under the belief."""
    cost: float
    """Questions to be expected under the belief."""
    masks: float
    """Good masks to be expected under the belief: those of the set if it is accepted, else the known good ones."""

    @property
    def most_questions(self) -> int:
        """T, the largest number of questions."""
        return len(self.accept) - 1


def outcome(design: Design, asked: int, bad: int) -> Outcome:
    """Return what a design says after `asked` answers with `bad` bad ones, none of the looks before having ended it.

    Raises
    ------
    ValueError
        If the counts are impossible or beyond the last look.
    """
    if not 0 <= bad <= asked <= design.most_questions:
        raise ValueError(f"{bad} bad ones of {asked} answers do not occur in {design.most_questions} questions")
    if bad <= design.accept[asked]:
        return "accept"
    if bad >= design.reject[asked] or asked == design.most_questions:
        return "reject"
    return "ask"


def follow(design: Design, bad: npt.NDArray[np.bool_]) -> tuple[Outcome, int, int]:
    """Return the outcome after answers in the order of their draw, with the answers and the bad ones that it rests on.

    Parameters
    ----------
    bad : bool [A]
        Answers from the first question on; those behind the end of the audit have no part in it.
    """
    found = np.concatenate([[0], np.cumsum(bad[: design.most_questions])])
    looks = np.arange(len(found))
    ended = (found <= design.accept[looks]) | (found >= design.reject[looks]) | (looks == design.most_questions)
    asked = int(ended.argmax()) if ended.any() else len(found) - 1
    return outcome(design, asked, int(found[asked])), asked, int(found[asked])


def next_look(design: Design, asked: int, bad: int) -> int:
    """Return after how many answers the audit can end at the earliest: the questions until there will all be needed."""
    ahead = np.arange(asked + 1, design.most_questions + 1)
    can_end = (bad <= design.accept[ahead]) | (bad + ahead - asked >= design.reject[ahead])
    return int(ahead[can_end.argmax()]) if can_end.any() else design.most_questions


def false_acceptance(design: Design) -> float:
    """Return the largest probability, over every number of bad masks, that the design accepts a false claim; exact."""
    claim = _Claim(design.unknown, design.known_good, design.target)
    return float(_errors(claim, design.accept, design.reject)[1].max(initial=0.0))


def law(design: Design, bad: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the exact law of an audit.

    Parameters
    ----------
    bad : [B]
        Numbers of bad masks among the unknown ones.

    Returns
    -------
    float64 [B, X], the probability that it accepts with x bad masks found; float64 [B], questions to be expected.
    """
    return _law(design.unknown, np.atleast_1d(np.asarray(bad)), design.accept, design.reject)


def design(
    unknown: int,
    known_good: int,
    target: float,
    delta: float,
    *,
    belief: npt.ArrayLike,
    weight: npt.ArrayLike,
    price: float,
    n_max: int,
    step: int = 5,
    salvage: float = 0.0,
    exact: bool = True,
    start: int | None = None,
) -> Design | None:
    """Return the design that is expected to give most under a belief, None where no audit can show the target.

    Parameters
    ----------
    unknown, known_good
        The set.
    target
        The precision to be shown.
    delta
        Largest probability of accepting a false claim.
    belief, weight : [P]
        Numbers of bad masks that are thought possible, 0..unknown, and their probabilities up to a factor.
    price
        Masks that a question has to bring; asking ends where the rest is expected to bring less.
    n_max
        Questions that may be asked. With fewer than the smallest of `HORIZONS` they are looked at one by one.
    step
        Limits are looked at after every so many answers.
    salvage
        Masks that can still be had after a rejection, beside the confirmed ones.
    exact
        Check every number of bad masks. Without it the design is good enough to compare plans, not to audit.
    start
        Position in `HORIZONS` at which the search begins.

    Raises
    ------
    ValueError
        If parameters are out of range.
    """
    claim = _Claim(unknown, known_good, target)
    possible = _Belief.of(belief, weight, unknown)
    if not 0 < delta < 1 or step < 1:
        raise ValueError(f"delta {delta} or step {step} is out of range")
    if claim.limit(0) >= unknown:
        # True whatever the number of bad masks: nothing to ask.
        return _described(claim, delta, step, np.zeros(1, np.int64), np.full(1, NEVER, np.int64), possible, 0, exact)
    most = max(0, min(n_max, unknown))
    horizons = [horizon for horizon in HORIZONS if horizon <= most]
    if not horizons:
        horizons, step = [most], 1
    plan = _Plan(claim, delta, step, possible, price, salvage)
    index = _climb(plan, horizons, start)
    if index is None:
        return None
    tables = plan.tables(horizons[index])
    accept, reject = tables.accept, tables.reject
    if exact:
        checked = _checked(claim, delta, step, tables.widest, reject)
        if checked is None:
            return None
        accept, reject = checked
    return _described(claim, delta, step, accept, reject, possible, index, exact)


# --- what is claimed, and what is believed ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Claim:
    """That the set has the precision `target` once its known bad masks are dropped."""

    unknown: int
    known_good: int
    target: float

    def __post_init__(self) -> None:
        if self.unknown < 0 or self.known_good < 0 or not 0 < self.target < 1:
            raise ValueError(f"{self} is no claim about a set")

    @property
    def size(self) -> int:
        return self.unknown + self.known_good

    def limit(self, found: int) -> int:
        """Return the largest number of bad masks with which the claim is true when `found` of them were found."""
        return int(bad_limit(self.size, found, self.target))

    def false(self, bad: Integers, columns: int) -> npt.NDArray[np.bool_]:
        """Return whether the claim is false, [B, X], for each number of bad masks and 0..X-1 of them found."""
        return bad[:, None] > bad_limit(self.size, np.arange(columns), self.target)[None, :]

    def false_values(self, most_found: int, points: int = 0) -> Integers:
        """Return the numbers of bad masks with which a set may be accepted falsely.

        With more than these the claim is false too, and accepting is less probable: more bad masks never make the
        number that is found smaller.

        Parameters
        ----------
        most_found
            Nothing is accepted with more bad ones found.
        points
            Return about so many of them, denser where the claim is almost true; 0: all.
        """
        values = np.arange(self.limit(0) + 1, min(self.limit(most_found) + 2, self.unknown) + 1)
        if points and len(values) > points:
            place = len(values) ** (np.arange(points) / (points - 1.0)) - 1
            values = values[np.unique(np.round(place).astype(np.int64))]
        return values


@dataclass(frozen=True)
class _Belief:
    """Numbers of bad masks, [P], and their probabilities, [P], all above 0."""

    bad: Floats
    weight: Floats

    @staticmethod
    def of(belief: npt.ArrayLike, weight: npt.ArrayLike, unknown: int) -> "_Belief":
        bad, given = np.atleast_1d(np.asarray(belief, np.float64)), np.atleast_1d(np.asarray(weight, np.float64))
        valid = (
            bad.shape == given.shape and bad.ndim == 1 and bool(np.all((bad >= 0) & (bad <= unknown) & (given >= 0)))
        )
        if not valid or not 0 < given.sum() < np.inf:
            raise ValueError(f"a belief needs numbers of bad masks, 0 to {unknown}, and a weight for each")
        share = given / given.sum()
        return _Belief(bad[share > 0], share[share > 0])


# --- the law of the answers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Orders:
    """Orders of n answers with which an audit goes on or ends, by the number x of bad ones among them.

    Given x, all orders are equally probable whatever the number B of bad masks in the set. So these shares serve every
    B: times the hypergeometric probability of x they are the probability of x and of going on (or of ending) so.

    Attributes
    ----------
    low
        The smallest x.
    share : float64 [X]
        Share of all orders of n answers with `low`, `low` + 1, ... bad ones.
    """

    low: int
    share: Floats

    def __len__(self) -> int:
        return len(self.share)

    @property
    def high(self) -> int:
        """Above the largest x."""
        return self.low + len(self.share)

    def part(self, low: int, high: int) -> "_Orders":
        """Return the orders with `low` to below `high` bad ones."""
        low = max(low, self.low)
        return _Orders(low, self.share[low - self.low : max(high, low) - self.low])


_NO_ANSWER: Final = _Orders(0, np.ones(1))


@lru_cache(maxsize=64)
def _ways(more: int, most: int) -> Floats:
    """Return in how many ways k answers can be put among m others in a row, [k, m] for k to `more`, m to `most`."""
    ways = np.ones((more + 1, most + 1))
    for k in range(1, more + 1):
        np.cumsum(ways[k - 1], out=ways[k])
    ways.setflags(write=False)
    return ways


def _answer(orders: _Orders, asked: int, more: int, most: int) -> _Orders:
    """Return the orders after more answers than `asked`, `most` in all: where each of the last ones may be bad."""
    while more > 0:
        step = min(more, _TOGETHER)
        ways, columns = _ways(step, most), len(orders)
        good = ways[::-1, asked - orders.high + 1 : asked - orders.low + 1][:, ::-1]
        # Rows: 0, 1, ... bad ones among the last. Reading rows that are one too long shifts each by one more.
        rows = np.zeros((step + 1, columns + step + 1))
        rows[:, :columns] = ways[:, orders.low : orders.high] * good * orders.share
        shifted = rows.ravel()[: -step - 1].reshape(step + 1, columns + step)
        orders = _Orders(orders.low, shifted.sum(axis=0) / ways[step, asked])
        asked, more = asked + step, more - step
    return orders


class _Numbers:
    """Numbers of bad masks that a set may have, and with them the hypergeometric law of answers.

    Parameters
    ----------
    unknown
        Masks of the set.
    bad : [B]
        Numbers of bad masks in it.
    most_found, most_asked
        The largest x and n.
    """

    def __init__(self, unknown: int, bad: npt.NDArray[Any], most_found: int, most_asked: int):
        # The unit has no part in the law. It keeps the logarithms small, and their rounding.
        unit = max(unknown, 1) / (most_asked + 1)
        self._of_bad = _log_choices(bad, most_found, unit)
        self._of_good = _log_choices(unknown - bad, most_asked, unit)
        self._of_any = _log_choices(np.array([unknown]), most_asked, unit)[0]

    def __len__(self) -> int:
        return len(self._of_bad)

    def chance(self, asked: int, orders: _Orders) -> Floats:
        """Return the probability of orders of so many answers, [B, X]."""
        low, high = orders.low, orders.high
        good = self._of_good[:, asked - high + 1 : asked - low + 1][:, ::-1]
        chance = np.exp(self._of_bad[:, low:high] + good - self._of_any[asked])
        chance *= orders.share
        return np.asarray(chance)


def _log_choices(first: npt.NDArray[Any], most: int, unit: float = 1.0) -> Floats:
    """Return the logarithm of the ways to choose k of a masks, over unit^k, for k = 0..most, [A, most + 1]."""
    chosen = np.arange(most)
    table = np.zeros((len(first), most + 1))
    with np.errstate(divide="ignore"):
        np.cumsum(np.log(np.maximum(first[:, None] - chosen, 0) / ((chosen + 1) * unit)), axis=1, out=table[:, 1:])
    return table


@dataclass(frozen=True)
class _Look:
    """What ends an audit after some answers, and what goes on."""

    asked: int
    accepted: _Orders
    going_on: _Orders
    rejects: bool
    """Whether anything may be rejected; else all that is not accepted goes on."""


def _looks(accept: Integers, reject: Integers) -> list[_Look]:
    """Return the looks at which an audit can end."""
    last = len(accept) - 1
    looks: list[_Look] = []
    orders, before = _NO_ANSWER, 0
    for n in np.flatnonzero((accept >= 0) | (reject < NEVER) | (np.arange(last + 1) == last)).tolist():
        orders, before = _answer(orders, before, n - before, last), n
        least = int(accept[n]) + 1
        accepted, orders = orders.part(0, least), orders.part(least, least if n == last else int(reject[n]))
        looks.append(_Look(n, accepted, orders, n == last or int(reject[n]) <= n))
        if not len(orders):
            break
    return looks


def _numbers(unknown: int, bad: npt.NDArray[Any], looks: list[_Look]) -> _Numbers:
    """Return numbers of bad masks with tables that are large enough for some looks."""
    found = max(max(look.accepted.high, look.going_on.high if look.rejects else 0) for look in looks)
    return _Numbers(unknown, bad, found, looks[-1].asked)


def _accepted(numbers: _Numbers, looks: list[_Look]) -> Floats:
    """Return P(accepted with x found), [B, X]."""
    accepted = np.zeros((len(numbers), max(look.accepted.high for look in looks)))
    for look in looks:
        accepted[:, look.accepted.low : look.accepted.high] += numbers.chance(look.asked, look.accepted)
    return accepted


def _questions(numbers: _Numbers, looks: list[_Look]) -> Floats:
    """Return the questions to be expected, [B]: one for each answer before which the audit still goes on."""
    questions, going_on, before = np.zeros(len(numbers)), np.ones(len(numbers)), 0
    for look in looks:
        questions += (look.asked - before) * going_on
        before = look.asked
        if look.rejects:
            going_on = numbers.chance(look.asked, look.going_on).sum(axis=1)
        else:
            # Without a limit of rejection there are too many counts to sum over.
            going_on = going_on - numbers.chance(look.asked, look.accepted).sum(axis=1)
    return questions


def _law(unknown: int, bad: npt.NDArray[Any], accept: Integers, reject: Integers) -> tuple[Floats, Floats]:
    """Return P(accepted with x found), [B, X], and the questions to be expected, [B]."""
    looks = _looks(accept, reject)
    numbers = _numbers(unknown, bad, looks)
    return _accepted(numbers, looks), _questions(numbers, looks)


def _errors(claim: _Claim, accept: Integers, reject: Integers) -> tuple[Integers, Floats]:
    """Return every number of bad masks with which a claim may be false, and the probability that it is accepted."""
    bad = claim.false_values(max(0, int(accept.max())))
    looks = _looks(accept, reject)
    accepted = _accepted(_numbers(claim.unknown, bad, looks), looks)
    return bad, np.asarray((accepted * claim.false(bad, accepted.shape[1])).sum(axis=1))


# --- limits of acceptance ---------------------------------------------------------------------------------------------


def _acceptance(
    claim: _Claim,
    delta: float,
    horizon: int,
    step: int,
    widest: int,
    bad: Integers,
    reject: Integers | None = None,
) -> Integers:
    """Return `accept`: at each look the largest count with which the errors so far stay within what may be spent.

    Parameters
    ----------
    widest
        Larger counts are never accepted.
    bad
        The numbers of bad masks whose errors are looked at.
    reject
        Rejection limits that are kept to, so that their part of the error may be spent; None: nothing is rejected.

    Notes
    -----
    Over the looks the limits never fall: what had at most `accept[n]` bad ones has left, so that keeping the limit is
    free. For the same reason they are as large as can be where everything was accepted or rejected before.
    """
    numbers, orders = _Numbers(claim.unknown, bad, widest, horizon), _NO_ANSWER
    false = claim.false(bad, widest + 1)
    wrong = np.zeros(len(bad))
    accept = np.full(horizon + 1, -1, np.int64)
    for n in range(step, horizon + 1, step):
        if not len(orders):
            accept[n::step] = np.minimum(np.arange(n, horizon + 1, step), widest)
            break
        # Larger counts are never accepted, and counts do not fall.
        orders = _answer(orders, n - step, step, horizon).part(0, widest + 1)
        may_spend = delta * (n / horizon) ** _EXPONENT + _ROUNDING
        least, wrong = _unaffordable(n, orders, numbers, false, wrong, may_spend)
        accept[n] = min(widest, n) if least is None else least - 1
        orders = orders.part(int(accept[n]) + 1, NEVER if reject is None else int(reject[n]))
    return accept


def _unaffordable(
    asked: int, orders: _Orders, numbers: _Numbers, false: npt.NDArray[np.bool_], wrong: Floats, may_spend: float
) -> tuple[int | None, Floats]:
    """Return the smallest count that cannot be accepted, None if all can, and the errors with all below accepted."""
    for low in range(orders.low, orders.high, _BLOCK):
        part = orders.part(low, low + _BLOCK)
        error = wrong[:, None] + np.cumsum(numbers.chance(asked, part) * false[:, part.low : part.high], axis=1)
        affordable = (error <= may_spend).all(axis=0)
        count = len(part) if affordable.all() else int(affordable.argmin())
        wrong = error[:, count - 1] if count else wrong
        if count < len(part):
            return low + count, wrong
    return None, wrong


def _widest(claim: _Claim, horizon: int) -> tuple[int, int]:
    """Return two limits for the counts that may be accepted: one that is nearly always enough, and one that is always.

    The first is the share of bad masks that the target allows, in `horizon` answers. Known good masks, and dropping
    what is found, allow for more: a set that misses the target just so has (1 - target)(M - x) + x bad masks, of which
    x = horizon / u of them are found.
    """
    share = horizon / claim.unknown
    with_dropping = share * (1 - claim.target) * claim.size / (1 - claim.target * share)
    first, second = (
        int(min(horizon, np.ceil(count * 1.05 + 1))) for count in ((1 - claim.target) * horizon, with_dropping)
    )
    return first, max(first, second)


def _checked(claim: _Claim, delta: float, step: int, widest: int, reject: Integers) -> tuple[Integers, Integers] | None:
    """Return limits whose error was checked for every number of bad masks, None where it is above delta.

    Rejection is binding: some of the error that it avoids can be spent on acceptance.
    """
    horizon = len(reject) - 1
    points = claim.false_values(widest, _FINAL_POINTS)
    for share in _SHRINK:
        accept = _acceptance(claim, delta * share, horizon, step, widest, points, reject)
        if accept.max() < 0:
            return None
        kept = np.maximum(reject, accept + 1)
        kept[-1] = accept[-1] + 1
        bad, errors = _errors(claim, accept, kept)
        if np.all(errors <= delta):
            return accept, kept
        points = np.union1d(points, bad[errors > delta])
    return None


# --- limits of rejection, and the choice of the horizon ---------------------------------------------------------------


@dataclass(frozen=True)
class _Tables:
    """Limits before every number of bad masks was checked."""

    accept: Integers
    reject: Integers
    value: float
    """Masks to be expected, less the price of the questions; -inf where nothing is ever accepted."""
    widest: int


class _Plan:
    """What an audit is to bring; tables by horizon, each computed once."""

    def __init__(self, claim: _Claim, delta: float, step: int, belief: _Belief, price: float, salvage: float):
        self._claim, self._delta, self._step = claim, delta, step
        self._price, self._salvage = price, salvage
        self._outlook = _Outlook(claim.unknown, belief, step)
        self._done: dict[int, _Tables] = {}

    def tables(self, horizon: int) -> _Tables:
        if horizon not in self._done:
            self._done[horizon] = self._tables(horizon - horizon % self._step)
        return self._done[horizon]

    def _tables(self, last: int) -> _Tables:
        first, widest = _widest(self._claim, last)
        accept = self._accept(last, first)
        if accept.max() < first:
            widest = first
        elif widest > first:
            accept = self._accept(last, widest)
        if accept.max() < 0:
            return _Tables(accept, np.full(last + 1, NEVER, np.int64), -np.inf, widest)
        return _Tables(accept, *self._rejection(accept), widest)

    def _accept(self, last: int, widest: int) -> Integers:
        bad = self._claim.false_values(widest, _SEARCH_POINTS)
        return _acceptance(self._claim, self._delta, last, self._step, widest, bad)

    def value(self, horizon: int) -> float:
        return self.tables(horizon).value

    def _rejection(self, accept: Integers) -> tuple[Integers, float]:
        """Return `reject` by backward induction: where going on is not worth its price; and the value at the start."""
        last, step = len(accept) - 1, self._step
        found, looks = np.arange(int(accept.max()) + 2), np.arange(0, last + 1, step)
        expected, moves = self._outlook.tables(len(looks), len(found))
        accepting = self._claim.size - expected
        stopping = self._claim.known_good + looks[:, None] - found + self._salvage
        reject = np.full(last + 1, NEVER, np.int64)
        # The value at the next look; counts beyond the last column end there.
        ahead = np.zeros(len(found) + step)
        at = sliding_window_view(ahead, len(found))
        for place in range(len(looks) - 1, -1, -1):
            n = int(looks[place])
            first = int(accept[n]) + 1
            if n < last:
                going_on = (moves[place] * at).sum(axis=0) - self._price * step
                reject[n] = _reject_from(n, first, stopping[place] < going_on)
                ahead[: len(found)] = going_on
            else:
                reject[n] = first
            ahead[reject[n] : len(found)] = stopping[place, reject[n] :]
            ahead[:first] = accepting[place, :first]
            ahead[len(found) :] = stopping[place, -1] - 1
        return reject, float(ahead[0])


def _reject_from(n: int, first: int, worth_it: npt.NDArray[np.bool_]) -> int:
    """Return the smallest count that is rejected, `first` or more: above every count for which going on is worth it."""
    if n == 0:
        return NEVER
    better = np.flatnonzero(worth_it[first : n + 1])
    count = first + int(better[-1]) + 1 if len(better) else first
    return count if count <= n else NEVER


class _Outlook:
    """What is believed at every look; the tables for a longer audit begin with those for a shorter one."""

    def __init__(self, unknown: int, belief: _Belief, step: int):
        self._unknown, self._belief, self._step = unknown, belief, step
        self._expected, self._moves = np.zeros((0, 0)), np.zeros((0, 0, 0))

    def tables(self, looks: int, columns: int) -> tuple[Floats, Floats]:
        """Return tables for so many looks and counts of bad answers, 0 and more.

        Returns
        -------
        float64 [L, X], bad masks to be expected; float64 [L, step + 1, X], probabilities of 0, 1, ... further bad
        answers until the next look.
        """
        if looks > len(self._expected) or columns > self._expected.shape[1]:
            # Moves look at the next look and at counts ahead.
            asked = np.arange(looks + 1) * self._step
            expected = _expected_bad(self._unknown, self._belief, asked, columns + self._step)
            self._moves = _moves(expected, self._unknown, self._step)
            self._expected = expected[:looks, :columns]
        return self._expected[:looks, :columns], self._moves[:looks, :, :columns]


def _moves(expected: Floats, unknown: int, step: int) -> Floats:
    """Return the probabilities of further bad answers from look to look, [L - 1, step + 1, X - step].

    Between looks the number of bad masks to be expected is interpolated.
    """
    looks, columns = len(expected) - 1, expected.shape[1]
    bad_left = expected - np.arange(columns)
    unanswered = unknown - step * np.arange(looks)
    moves = np.zeros((looks, step + 1, columns - step))
    moves[:, 0] = 1
    for answered in range(step):
        share = answered / step
        bad = (1 - share) * bad_left[:-1] + share * bad_left[1:]
        bad = np.clip(bad / np.maximum(unanswered - answered, 1)[:, None], 0, 1)
        for more in range(answered, -1, -1):
            moved = moves[:, more] * bad[:, more : more + columns - step]
            moves[:, more] -= moved
            moves[:, more + 1] += moved
    return moves


def _expected_bad(unknown: int, belief: _Belief, asked: Integers, columns: int) -> Floats:
    """Return the number of bad masks to be expected after so many answers with 0, 1, ... bad ones, [L, X]."""
    # The number of orders in which the answers may come is the same for every number of bad masks.
    of_bad = _log_choices(belief.bad, columns - 1) + np.log(belief.weight)[:, None]
    of_good = _log_choices(unknown - belief.bad, int(asked[-1]))
    # Counts above the answers do not occur; any number will do.
    padded = np.concatenate([np.zeros((len(of_good), columns - 1)), of_good], axis=1)
    logs = of_bad[:, None, :] + sliding_window_view(padded, columns, axis=1)[:, asked, ::-1]
    top = logs.max(axis=0)
    posterior = np.exp(logs - np.where(np.isfinite(top), top, 0))
    total = posterior.sum(axis=0)
    mean = np.tensordot(belief.bad, posterior, 1) / np.where(total > 0, total, 1)
    # What the belief calls impossible is taken for the worst that it knows.
    return np.asarray(np.where(total > 0, mean, belief.bad.max()))


def _climb(plan: _Plan, horizons: list[int], start: int | None) -> int | None:
    """Return the place of the horizon with the largest value by climbing from a first one, None if all are in vain."""
    place = min(_FIRST_HORIZON if start is None else start, len(horizons) - 1)
    while True:
        # The longest comes first: the tables of the others are parts of its tables.
        longer = min(place + 1, len(horizons) - 1)
        values = {other: plan.value(horizons[other]) for other in (longer, place)}
        if not np.isfinite(values[place]):
            best = longer
        else:
            # The present one is looked at first: it stays where others are not better.
            near = [place, *(other for other in (place - 1, place + 1) if 0 <= other < len(horizons))]
            best = max(near, key=lambda other: plan.value(horizons[other]))
        if best == place:
            return place if np.isfinite(values[place]) else None
        place = best


def _described(
    claim: _Claim,
    delta: float,
    step: int,
    accept: Integers,
    reject: Integers,
    belief: _Belief,
    index: int,
    exact: bool,
) -> Design:
    accepted, questions = _law(claim.unknown, belief.bad, accept, reject)
    passes = accepted.sum(axis=1)
    masks = belief.weight @ (passes * (claim.size - belief.bad)) + claim.known_good * belief.weight @ (1 - passes)
    accept.setflags(write=False)
    reject.setflags(write=False)
    return Design(
        accept=accept,
        reject=reject,
        unknown=claim.unknown,
        known_good=claim.known_good,
        target=claim.target,
        delta=delta,
        step=step,
        index=index,
        exact=exact,
        passes=float(belief.weight @ passes),
        cost=float(belief.weight @ questions),
        masks=float(masks),
    )
