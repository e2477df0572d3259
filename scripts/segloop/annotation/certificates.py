"""What an audit of an accepted set shows: bounds on its precision, and the record of them.

The set: K masks that are known to be good and u whose truth is unknown, B of them bad; masks that are known to be bad
are out already. Fresh answers are drawn uniformly without replacement from the u. After n answers with x bad ones,
those x are dropped and M - x masks remain (M = K + u), B - x of them bad. Nothing is assumed about how the set was
chosen, as long as it was chosen before the first of these answers was seen.
"""

import math
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from segloop.errors import SegloopError
from segloop.files import other_version, read_json, write_json


@dataclass(frozen=True)
class Certificate:
    """The outcome of one audit; a claim only where `passed`."""

    certificate_id: str
    """Unique within a run: iteration, and what was audited."""
    category: int | None
    """The category that was audited by itself; None: the whole accepted set."""
    kind: str
    """`fixed` (all questions are asked) or `sequential` (it may stop early); both are exact."""
    target: float
    """The precision that was to be shown."""
    delta: float
    """Probability, over the draw of the questions, that a claim of this audit is false."""
    size: int
    """Masks of the set without those that the audit found bad; what else is known to be bad is dropped besides."""
    known_good: int
    """Masks of the set that were answered with yes before the audit."""
    asked: int
    """Questions of the audit: fresh ones, and those that the audit of a smaller set within this one had asked."""
    bad: int
    """Answers among them that were no."""
    lower: float
    """With confidence 1 - delta at least this share of the remaining set is good (finite-population bound)."""
    clopper_pearson: float
    """The usual one-sided bound on the share of good ones among the u, from the same answers, for comparison."""
    passed: bool
    """Whether the set may be accepted with the claim `precision >= target`."""
    false_yes: float = 0.0
    """Bad masks are answered with yes at most this often (segloop.annotation.quality)."""
    claimed: float = math.nan
    """What `lower` shows if they are; NaN stands for `lower` itself."""

    def __post_init__(self) -> None:
        if math.isnan(self.claimed):
            object.__setattr__(self, "claimed", self.lower)


CERTIFICATES_SCHEMA: Final = 1


def clopper_pearson_lower(good: int, asked: int, delta: float) -> float:
    """Return the one-sided lower bound on a binomial proportion.

    Raises
    ------
    ValueError
        If the counts or the level are impossible.

    References
    ----------
    C. J. Clopper and E. S. Pearson, Biometrika 26(4), 1934.
    """
    if not 0 <= good <= asked or not 0 < delta < 1:
        raise ValueError(f"{good} good ones of {asked} at level {delta} are impossible")
    return 0.0 if good == 0 else float(betaincinv(good, asked - good + 1, delta))


def most_bad(unknown: int, asked: int, bad: int, delta: float) -> int:
    """Return the largest number of bad masks among `unknown` that the answers do not rule out at level delta.

    The largest B with P(at most `bad` of `asked` are bad | B) > delta, drawn without replacement: the exact one-sided
    bound for a finite population.

    Raises
    ------
    ValueError
        If the counts or the level are impossible.
    """
    if not 0 <= bad <= asked <= unknown or not 0 < delta < 1:
        raise ValueError(f"{bad} bad ones of {asked} of {unknown} at level {delta} are impossible")
    # Imported when needed: it takes a second, which most jobs that read certificates save.
    from scipy.stats import hypergeom

    low, high = bad, unknown - (asked - bad)
    # P falls with B: bisection between a value that is possible and the largest that can be.
    while low < high:
        middle = (low + high + 1) // 2
        # In sets of many millions the sum is right to nine digits; a number that close to delta is not ruled out.
        if hypergeom.cdf(bad, unknown, middle, asked) > delta * (1 - 1e-8):
            low = middle
        else:
            high = middle - 1
    return low


def precision_lower(known_good: int, unknown: int, asked: int, bad: int, delta: float) -> float:
    """Return a lower bound on the precision of a set without the bad masks of its audit; 0 if it is empty."""
    remaining = known_good + unknown - bad
    if remaining == 0:
        return 0.0
    return (remaining - (most_bad(unknown, asked, bad, delta) - bad)) / remaining


@lru_cache
def _bad_share(target: float) -> Fraction:
    # As it is written: with millions of masks a product of floats may fall short of the whole number it ought to be.
    return (1 - Fraction(str(target))).limit_denominator(10**9)


def bad_limit(size: int, found: npt.ArrayLike, target: float) -> npt.NDArray[np.int64]:
    """Return the largest number of bad masks in a set with which it has the target precision once some were dropped.

    The masks that are left have precision >= target iff B - x <= (1 - target)(size - x).

    Parameters
    ----------
    size
        Masks of the set, those that are found to be bad included.
    found
        Bad masks that were found and dropped, x; any shape.
    """
    dropped = np.asarray(found, np.int64)
    allowed = _bad_share(float(target))
    return np.asarray(allowed.numerator * (size - dropped) // allowed.denominator + dropped, np.int64)


def fixed_certificate(
    *,
    certificate_id: str,
    category: int | None,
    target: float,
    delta: float,
    known_good: int,
    unknown: int,
    asked: int,
    bad: int,
) -> Certificate:
    """Return what an audit shows whose number of questions was fixed beforehand; see `Certificate`.

    Parameters
    ----------
    unknown
        Masks that the questions were drawn from.
    bad
        Answers other than yes; these masks are dropped.
    """
    size = known_good + unknown - bad
    worst = most_bad(unknown, asked, bad, delta)
    return Certificate(
        certificate_id=certificate_id,
        category=category,
        kind="fixed",
        target=target,
        delta=delta,
        size=size,
        known_good=known_good,
        asked=asked,
        bad=bad,
        lower=precision_lower(known_good, unknown, asked, bad, delta),
        clopper_pearson=clopper_pearson_lower(asked - bad, asked, delta),
        # Whole numbers decide, so that a bound that equals the target is not lost to rounding.
        passed=size > 0 and worst <= int(bad_limit(known_good + unknown, bad, target)),
    )


def sequential_certificate(
    *,
    certificate_id: str,
    target: float,
    delta: float,
    known_good: int,
    unknown: int,
    asked: int,
    bad: int,
    accepted: bool,
) -> Certificate:
    """Return what a sequential audit of a whole set shows; see `fixed_certificate`.

    It shows the target or nothing, beside what the known masks say by themselves. Clopper-Pearson's bound leaves aside
    that the audit could have stopped at other times.
    """
    size = known_good + unknown - bad
    certain = (known_good + asked - bad) / size if size else 0.0
    passed = accepted and size > 0
    return Certificate(
        certificate_id=certificate_id,
        category=None,
        kind="sequential",
        target=target,
        delta=delta,
        size=size,
        known_good=known_good,
        asked=asked,
        bad=bad,
        lower=max(certain, target) if passed else certain,
        clopper_pearson=clopper_pearson_lower(asked - bad, asked, delta),
        passed=passed,
    )


def delta_of_iteration(delta: float, iteration: int) -> float:
    """Return what an iteration may spend, delta 2^-i, so that all claims of a run hold together with 1 - delta.

    Iteration 0 stands for an audit outside any loop and may spend everything.
    """
    return delta * 2.0**-iteration


def write_certificates(path: Path, certificates: tuple[Certificate, ...]) -> None:
    """Write certificates.json, whole or not at all."""
    write_json(path, {"schema": CERTIFICATES_SCHEMA, "certificates": [asdict(one) for one in certificates]})


def read_certificates(path: Path) -> tuple[Certificate, ...]:
    """Read certificates.json.

    Raises
    ------
    SegloopError
        If the file is missing, damaged or of another layout.
    """
    given: dict[str, Any] = read_json(path)
    try:
        if given["schema"] != CERTIFICATES_SCHEMA:
            raise SegloopError(other_version(path, given["schema"], CERTIFICATES_SCHEMA))
        return tuple(_certificate(one) for one in given["certificates"])
    except (KeyError, TypeError) as error:
        raise SegloopError(f"{path} is no list of certificates ({error}). Run the annotation step again.") from None


def _certificate(given: dict[str, Any]) -> Certificate:
    one = Certificate(**given)
    for part in fields(one):
        value, kind = getattr(one, part.name), cast(type, part.type)
        # JSON does not tell 1 from 1.0.
        if not isinstance(value, (float, int) if kind is float else kind):
            raise TypeError(f"{part.name} is {value!r}")
    return one
