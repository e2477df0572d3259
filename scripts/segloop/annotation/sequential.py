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
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

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
_WORST: Final = -1e18


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


class _Paths:
    """Audits that are still going on: the probability of each number of bad masks found, for each number in the set.

    Only counts from `low` to below `high` are possible: smaller ones were accepted, larger ones rejected or are not
    reached yet.

    Attributes
    ----------
    chance : float64 [B, X]
        Probability that the audit goes on and x bad masks were found.
    """

    def __init__(self, unknown: int, bad: npt.NDArray[Any], columns: int):
        self.chance = np.zeros((len(bad), columns))
        self.chance[:, 0] = 1
        self.low, self.high = 0, 1
        self._unanswered = unknown
        self._bad_left = np.maximum(bad[:, None] - np.arange(columns), 0).astype(np.float64)

    @property
    def ended(self) -> bool:
        return self.low >= self.high

    def answer(self) -> Floats:
        """Let one more mask be answered; return the probability that went beyond the last column, [B]."""
        self.high = min(self.high + 1, self.chance.shape[1])
        here = slice(self.low, self.high)
        moved = self.chance[:, here] * np.minimum(self._bad_left[:, here] / self._unanswered, 1.0)
        self.chance[:, here] -= moved
        self.chance[:, self.low + 1 : self.high] += moved[:, :-1]
        self._unanswered -= 1
        return np.asarray(moved[:, -1])

    def take_below(self, count: int) -> Floats:
        """End what has found fewer than `count` bad masks; return its probability, [B]."""
        return self._take(slice(self.low, count), max(self.low, count), self.high)

    def take_from(self, count: int) -> Floats:
        """End what has found `count` bad masks or more; return its probability, [B]."""
        count = max(self.low, count)
        return self._take(slice(count, self.high), self.low, min(self.high, count))

    def _take(self, part: slice, low: int, high: int) -> Floats:
        taken = self.chance[:, part].sum(axis=1)
        self.chance[:, part] = 0
        self.low, self.high = low, high
        return np.asarray(taken)


def _law(unknown: int, bad: npt.NDArray[Any], accept: Integers, reject: Integers) -> tuple[Floats, Floats]:
    """Return P(accepted with x found), [B, X], and the questions to be expected, [B]."""
    last = len(accept) - 1
    # The last column stands for every count that is too large to be accepted ever.
    columns = int(min(accept.max() + 2, last + 2)) + 1
    paths = _Paths(unknown, bad, columns)
    accepted, questions = np.zeros_like(paths.chance), np.zeros(len(bad))
    for n in range(last + 1):
        here = slice(paths.low, int(accept[n]) + 1)
        accepted[:, here] += paths.chance[:, here]
        questions += n * paths.take_below(here.stop)
        if n == last or reject[n] < columns:
            questions += n * paths.take_from(0 if n == last else min(int(reject[n]), columns - 1))
        if paths.ended:
            break
        paths.chance[:, -1] += paths.answer()
    return accepted, questions


def _errors(claim: _Claim, accept: Integers, reject: Integers) -> tuple[Integers, Floats]:
    """Return every number of bad masks with which a claim may be false, and the probability that it is accepted."""
    bad = claim.false_values(max(0, int(accept.max())))
    accepted, _ = _law(claim.unknown, bad, accept, reject)
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
    paths = _Paths(claim.unknown, bad, widest + 2)
    false = claim.false(bad, widest + 2)
    wrong = np.zeros(len(bad))
    accept = np.full(horizon + 1, -1, np.int64)
    for n in range(1, horizon + 1):
        if paths.ended:
            later = np.arange(n + -n % step, horizon + 1, step)
            accept[later] = np.minimum(later, widest)
            break
        paths.answer()
        if n % step == 0:
            here = slice(paths.low, paths.high)
            error = wrong[:, None] + np.cumsum(paths.chance[:, here] * false[:, here], axis=1)
            affordable = (error <= delta * (n / horizon) ** _EXPONENT + _ROUNDING).all(axis=0)
            accept[n] = min(widest, n, n if affordable.all() else here.start + int(affordable.argmin()) - 1)
            if accept[n] >= here.start:
                wrong = error[:, min(int(accept[n]), here.stop - 1) - here.start]
                paths.take_below(int(accept[n]) + 1)
        if reject is not None and reject[n] <= widest + 1:
            paths.take_from(int(reject[n]))
    return accept


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
        self._belief, self._price, self._salvage = belief, price, salvage
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
        expected = _expected_bad(self._claim.unknown, self._belief, looks, found)
        stopping = self._claim.known_good + looks[:, None] - found + self._salvage
        reject = np.full(last + 1, NEVER, np.int64)
        value = np.zeros(0)
        for place in range(len(looks) - 1, -1, -1):
            n = int(looks[place])
            going_on = np.full(len(found), _WORST)
            if n < last:
                ahead = np.append(value, stopping[place + 1, -1] - 1)
                left = expected[place : place + 2] - found
                going_on = _average(ahead, left, self._claim.unknown - n, step) - self._price * step
            reject[n] = _reject_from(n, last, int(accept[n]), found, stopping[place] < going_on)
            rejected = np.where(found >= reject[n], stopping[place], going_on)
            value = np.where(found <= accept[n], self._claim.size - expected[place], rejected)
        return reject, float(value[0])


def _reject_from(n: int, last: int, accepted: int, found: Integers, worth_it: npt.NDArray[np.bool_]) -> int:
    """Return the smallest count that is rejected: above every count for which going on is worth it."""
    if n == last:
        return accepted + 1
    if n == 0:
        return NEVER
    better = np.flatnonzero(worth_it & (found > accepted) & (found <= n))
    count = int(better[-1]) + 1 if len(better) else accepted + 1
    return count if count <= n else NEVER


def _average(ahead: Floats, bad_left: Floats, left: int, step: int) -> Floats:
    """Return the mean of the values at the next look over the answers until there.

    Parameters
    ----------
    ahead : float64 [X + 1]
        Value at the next look for each count.
    bad_left : float64 [2, X]
        Bad masks to be expected among those left, given the count, at this look and at the next.
    left
        Masks without an answer at this look.
    """
    ahead = ahead.copy()
    for answered in range(step - 1, -1, -1):
        share = answered / step
        bad = ((1 - share) * bad_left[0] + share * bad_left[1]) / max(left - answered, 1)
        ahead[:-1] += np.clip(bad, 0, 1) * (ahead[1:] - ahead[:-1])
    return ahead[:-1]


def _expected_bad(unknown: int, belief: _Belief, looks: Integers, found: Integers) -> Floats:
    """Return the number of bad masks to be expected after each look with each count, [L, X]."""
    # The number of orders in which the answers may come is the same for every number of bad masks.
    of_bad = np.stack([_log_falling(bad, found) for bad in belief.bad.tolist()])
    of_good = np.stack([_log_falling(unknown - bad, np.arange(looks[-1] + 1)) for bad in belief.bad.tolist()])
    good = np.maximum(looks[:, None] - found, 0)
    logs = of_bad[:, None, :] + of_good[:, good] + np.log(belief.weight)[:, None, None]
    top = logs.max(axis=0)
    posterior = np.exp(logs - np.where(np.isfinite(top), top, 0))
    total = posterior.sum(axis=0)
    mean = (posterior * belief.bad[:, None, None]).sum(axis=0) / np.where(total > 0, total, 1)
    # What the belief calls impossible is taken for the worst that it knows.
    return np.asarray(np.where(total > 0, mean, belief.bad.max()))


def _log_falling(a: float, k: Integers) -> Floats:
    """Return log(a (a - 1) ... (a - k + 1)), -inf where that is nothing."""
    falling = gammaln(a + 1.0) - gammaln(np.maximum(a - k, 0) + 1.0)
    return np.asarray(np.where(k <= a, falling, -np.inf))


def _climb(plan: _Plan, horizons: list[int], start: int | None) -> int | None:
    """Return the place of the horizon with the largest value by climbing from a first one, None if all are in vain."""
    place = min(_FIRST_HORIZON if start is None else start, len(horizons) - 1)
    while True:
        if not np.isfinite(plan.value(horizons[place])):
            best = min(place + 1, len(horizons) - 1)
        else:
            # The present one comes first: it stays where others are not better.
            near = [place, *(other for other in (place - 1, place + 1) if 0 <= other < len(horizons))]
            best = max(near, key=lambda other: plan.value(horizons[other]))
        if best == place:
            return place if np.isfinite(plan.value(horizons[place])) else None
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
