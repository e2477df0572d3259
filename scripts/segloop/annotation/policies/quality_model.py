"""The probability that a mask is good, learned from answers: hierarchical Bayesian logistic regression.

logit P(good) = x b + sum over levels of g_level[node], with x = (1, score, normal score of the score's rank, whitened
principal components), a Gaussian prior on b, and g ~ N(0, variance of the level) for each node of each level of the
tree. The posterior is Gaussian around its mode (Laplace); variances and the width of the prior of the components are
chosen by the evidence. C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, 2006, sections
3.4 and 5.5; D. J. C. MacKay, Neural Computation 4(5), 1992, for the averaged probability.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import splu
from scipy.special import expit, logit, ndtri

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

VARIANCES: Final = (0.0, 0.3, 1.0, 3.0, 8.0, 20.0, 50.0)
"""What the variance of a level may be; 0: the level is off."""
WIDTHS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""What the prior of the components may be widened by."""
_FIRST_WIDTH: Final = 1
_SWITCHED_ON: Final = 3
"""Position in `VARIANCES` that a level starts at."""
_ENOUGH: Final = 100
"""Below so many answers the evidence decides nothing."""
_SMALL: Final = 20_000
"""Up to so many masks variances are computed mask by mask, beyond by cluster."""
_PRIOR_MEAN: Final = (0.0, 0.5, 0.5)
_PRIOR_DEVIATION: Final = (2.0, 0.5, 0.5)
"""Of the intercept and the two slopes of the score."""
_COMPONENT_DEVIATION: Final = 0.6
"""Of all components together, before `WIDTHS`."""
_AVERAGED: Final = np.pi / 8
_BLOCK: Final = 1 << 13
"""Rows that are standardised at a time: few enough for a processor's cache."""
_FOR_SCALES: Final = 500_000
"""Rows that tell how far components spread, at least, where there are as many."""


@dataclass(frozen=True)
class Features:
    """What is known of N masks without an answer.

    Attributes
    ----------
    dense : float32 [N, 3 + d]
        1, standardised logit of the score, normal score of its rank, and d components of unit variance.
    levels : int32 [N, L]
        The cluster of each mask, coarse levels first; clusters of a level are numbered from 0.
    """

    dense: npt.NDArray[np.float32]
    levels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.dense)

    @cached_property
    def sizes(self) -> list[npt.NDArray[np.int64]]:
        """Masks in each cluster, one array a level."""
        return [np.bincount(self.levels[:, level]).astype(np.int64) for level in range(self.levels.shape[1])]

    @cached_property
    def representatives(self) -> list[Rows]:
        """One mask of each cluster, one array a level."""
        return [np.unique(self.levels[:, level], return_index=True)[1] for level in range(self.levels.shape[1])]

    def means(self, level: int) -> Floats:
        """Return the mean of the dense features of each cluster, [K, 3 + d]."""
        if level not in self._means:
            n = len(self)
            membership = csr_matrix(
                (np.ones(n, np.float32), (self.levels[:, level], np.arange(n))), shape=(len(self.sizes[level]), n)
            )
            self._means[level] = np.asarray(membership @ self.dense) / np.maximum(self.sizes[level], 1)[:, None]
        return self._means[level]

    @cached_property
    def _means(self) -> dict[int, Floats]:
        return {}


def dense_features(
    score: npt.NDArray[np.float32], embedding: npt.NDArray[np.float16] | None, components: int
) -> npt.NDArray[np.float32]:
    """Return (1, score, rank of the score, components), float32 [N, 3 + d].

    Parameters
    ----------
    score
        In 0..1, [N].
    embedding
        Principal components, [N, D]; the first `components` are scaled to unit variance.
    """
    n = len(score)
    clipped = np.clip(score.astype(np.float64), 1e-6, 1 - 1e-6)
    leading = np.zeros((n, 0), np.float16) if embedding is None else embedding[:, :components]
    mean, deviation = _scales(leading)
    # Directions along which nothing varies would be blown up noise.
    varies = deviation > 1e-3 * deviation.max(initial=0)
    if not varies.all():
        leading, mean, deviation = leading[:, varies], mean[varies], deviation[varies]
    logits = logit(clipped)
    spread = logits.std()
    standard = (logits - logits.mean()) / (spread if spread > 0 else 1)
    ranks = np.empty(n)
    ranks[np.argsort(clipped, kind="stable")] = ndtri((np.arange(n) + 0.5) / n)
    dense = np.empty((n, len(_PRIOR_MEAN) + len(mean)), np.float32)
    # Few rows at a time: tens of millions of them pass through the processor's cache once, and no large copy is made.
    for begin in range(0, n, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        dense[block, 0], dense[block, 1], dense[block, 2] = 1, standard[block], ranks[block]
        dense[block, len(_PRIOR_MEAN) :] = (leading[block].astype(np.float32) - mean) / deviation
    return dense


def _scales(components: npt.NDArray[np.float16]) -> tuple[Floats, Floats]:
    """Return mean and deviation of each component, [d]; of very many rows, of some that lie evenly among them."""
    some = components[:: max(1, len(components) // _FOR_SCALES)]
    if len(some) == 0:
        return np.zeros(components.shape[1]), np.zeros(components.shape[1])
    mean = _summed(some, lambda rows: rows) / len(some)
    return mean, np.sqrt(_summed(some, lambda rows: (rows - mean) ** 2) / len(some))


def _summed(rows: npt.NDArray[np.float16], change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Floats:
    """Return the sum of the rows after a change, [d], few of them at a time and in their order."""
    total = np.zeros((1, rows.shape[1]))
    for begin in range(0, len(rows), _BLOCK):
        changed = change(rows[begin : begin + _BLOCK].astype(np.float32))
        total = np.concatenate([total, changed]).sum(axis=0, keepdims=True)
    return np.asarray(total[0], np.float64)


@dataclass(frozen=True)
class Tuning:
    """Where the search for the best variances stands; each fit starts where the one before ended."""

    variances: tuple[int, ...]
    """Position in `VARIANCES`, one a level."""
    width: int = _FIRST_WIDTH
    """Position in `WIDTHS`."""
    weights: Floats | None = None
    """Mode of b."""

    @property
    def levels(self) -> list[int]:
        """Levels that carry something."""
        return [level for level, position in enumerate(self.variances) if position > 0]


@dataclass(frozen=True)
class Fit:
    """A Gaussian posterior; sparse parts are None while no level is on."""

    features: Features
    rows: Rows
    """Masks with an answer, [A]."""
    good: npt.NDArray[np.bool_]
    """The answers, [A]."""
    tuning: Tuning
    evidence: float
    b: Floats
    g: Floats
    """Effects of the clusters that hold an answer, all active levels one after the other."""
    nodes: list[tuple[int, npt.NDArray[np.int64]] | None]
    """For each level the first place in `g` and the clusters there; None: off."""
    precision: Floats
    """Prior precision of b."""
    shrink: Floats
    """Prior precision of g."""
    curvature: Floats
    """p (1 - p) of each answer, [A]."""
    schur: Floats
    factor: Any
    coupling: Any
    problem: "_Problem"


class QualityModel:
    """Fits P(good) to answers and keeps what the search for variances has found."""

    def __init__(self, features: Features):
        self.features = features
        self.tuning = Tuning((0,) * features.levels.shape[1])
        dense = features.dense.shape[1] - len(_PRIOR_MEAN)
        self._mean = np.concatenate([_PRIOR_MEAN, np.zeros(dense)])
        deviation = np.full(dense, _COMPONENT_DEVIATION / np.sqrt(max(dense, 1)))
        self._precision = 1 / np.concatenate([_PRIOR_DEVIATION, deviation]) ** 2

    def tune(self, rows: Rows, good: npt.NDArray[np.bool_], rounds: int = 3) -> Fit:
        """Fit, after moving variances and the width one step at a time while the evidence grows.

        Parameters
        ----------
        rows
            Masks with an answer, ascending, [A].
        good
            The answers, [A].
        """
        seen: dict[tuple[tuple[int, ...], int], Fit] = {}

        def worth(variances: tuple[int, ...], width: int) -> float:
            key = variances, width
            if key not in seen:
                seen[key] = self.fit(rows, good, Tuning(variances, width, self.tuning.weights))
            # A level has to earn its place, and so has a prior far from the first one.
            return seen[key].evidence - sum(v > 0 for v in variances) - 0.5 * abs(width - _FIRST_WIDTH)

        here = self.tuning.variances, self.tuning.width
        for _ in range(rounds if len(rows) >= _ENOUGH else 0):
            there = max(_neighbours(*here), key=lambda key: worth(*key))
            if worth(*there) <= worth(*here):
                break
            here = there
        worth(*here)
        fit = seen[here]
        self.tuning = Tuning(*here, fit.b)
        return fit

    def fit(self, rows: Rows, good: npt.NDArray[np.bool_], tuning: Tuning) -> Fit:
        """Return the posterior for given variances: Newton's method, the dense part by a Schur complement."""
        x = self.features.dense[rows].astype(np.float64)
        design, shrink, nodes = self._random_effects(rows, tuning)
        precision = self._precision.copy()
        precision[len(_PRIOR_MEAN) :] /= WIDTHS[tuning.width] ** 2
        problem = _Problem(x, design, good, self._mean, precision, shrink)
        start = self._mean if tuning.weights is None else tuning.weights
        b, g, solver, value = problem.solve(start)
        return Fit(
            features=self.features,
            rows=rows,
            good=good,
            tuning=tuning,
            evidence=value - 0.5 * solver.log_determinant(precision, shrink),
            b=b,
            g=g,
            nodes=nodes,
            precision=precision,
            shrink=shrink,
            curvature=solver.curvature,
            schur=solver.schur,
            factor=solver.factor,
            coupling=solver.coupling,
            problem=problem,
        )

    def _random_effects(
        self, rows: Rows, tuning: Tuning
    ) -> tuple[Any, Floats, list[tuple[int, npt.NDArray[np.int64]] | None]]:
        columns: list[npt.NDArray[np.int64]] = []
        nodes: list[tuple[int, npt.NDArray[np.int64]] | None] = []
        shrink: list[Floats] = []
        first = 0
        for level, position in enumerate(tuning.variances):
            if position == 0:
                nodes.append(None)
                continue
            found, inverse = np.unique(self.features.levels[rows, level], return_inverse=True)
            columns.append(first + inverse.astype(np.int64))
            nodes.append((first, found.astype(np.int64)))
            shrink.append(np.full(len(found), 1 / VARIANCES[position]))
            first += len(found)
        if not columns:
            return None, np.zeros(0), nodes
        n = len(rows)
        places = (np.tile(np.arange(n), len(columns)), np.concatenate(columns))
        return csr_matrix((np.ones(n * len(columns)), places), shape=(n, first)), np.concatenate(shrink), nodes


def _neighbours(variances: tuple[int, ...], width: int) -> list[tuple[tuple[int, ...], int]]:
    """Return the settings one move away: a step of one variance or of the width, a swap, a level switched on."""
    found = [(variances, width + step) for step in (-1, 1) if 0 <= width + step < len(WIDTHS)]
    for level, position in enumerate(variances):
        for step in (-1, 1):
            if 0 <= position + step < len(VARIANCES):
                found.append(((*variances[:level], position + step, *variances[level + 1 :]), width))
        for other, carried in enumerate(variances):
            if other != level and carried > 0:
                swapped = list(variances)
                swapped[level], swapped[other] = max(carried, position), 0
                found.append((tuple(swapped), width))
        if position == 0:
            found.append(((*variances[:level], _SWITCHED_ON, *variances[level + 1 :]), width))
    return found


@dataclass(frozen=True)
class _Solver:
    """The curvature at a point, factored."""

    curvature: Floats
    schur: Floats
    factor: Any
    coupling: Any

    def log_determinant(self, precision: Floats, shrink: Floats) -> float:
        """Return log det of the posterior precision over that of the prior."""
        found = np.linalg.slogdet(self.schur)[1] - np.log(precision).sum()
        if self.factor is not None:
            found += np.log(np.abs(self.factor.U.diagonal())).sum() - np.log(shrink).sum()
        return float(found)


@dataclass(frozen=True)
class _Problem:
    """The penalised likelihood of one fit."""

    x: Floats
    z: Any
    good: npt.NDArray[np.bool_]
    mean: Floats
    precision: Floats
    shrink: Floats

    def value(self, b: Floats, g: Floats) -> tuple[Floats, float]:
        linear = self.x @ b + (self.z @ g if len(g) else 0)
        fit = -np.logaddexp(0, np.where(self.good, -linear, linear)).sum()
        prior = (self.precision * (b - self.mean) ** 2).sum() + (self.shrink * g**2).sum()
        return linear, float(fit - 0.5 * prior)

    def solve(self, start: Floats) -> tuple[Floats, Floats, _Solver, float]:
        b, g = start.copy(), np.zeros(len(self.shrink))
        linear, value = self.value(b, g)
        for _ in range(30):
            solver, step_b, step_g = self.newton(b, g, linear)
            size = 1.0
            while True:
                moved, gained = self.value(b + size * step_b, g + size * step_g)
                if gained >= value - 1e-9 or size < 1e-3:
                    break
                size /= 2
            b, g, linear, gain, value = b + size * step_b, g + size * step_g, moved, gained - value, gained
            if abs(gain) < 1e-4:
                break
        return b, g, solver, value

    def newton(self, b: Floats, g: Floats, linear: Floats) -> tuple[_Solver, Floats, Floats]:
        p = expit(linear)
        curvature = p * (1 - p)
        slope_b = self.x.T @ (self.good - p) - self.precision * (b - self.mean)
        block = (self.x * curvature[:, None]).T @ self.x + np.diag(self.precision)
        if not len(g):
            return _Solver(curvature, block, None, None), np.linalg.solve(block, slope_b), np.zeros(0)
        slope_g = self.z.T @ (self.good - p) - self.shrink * g
        inner = (self.z.T @ diags(curvature) @ self.z + diags(self.shrink)).tocsc()
        options = {"SymmetricMode": True}
        factor = splu(inner, permc_spec="MMD_AT_PLUS_A", options=options, diag_pivot_thresh=0.0)
        cross = np.asarray(self.z.T @ (self.x * curvature[:, None]))
        coupling = factor.solve(np.ascontiguousarray(cross))
        schur = block - cross.T @ coupling
        step_b = np.linalg.solve(schur, slope_b - coupling.T @ slope_g)
        return _Solver(curvature, schur, factor, coupling), step_b, factor.solve(slope_g) - coupling @ step_b


@dataclass(frozen=True)
class Posterior:
    """What a fit says of all masks.

    Attributes
    ----------
    probability : float32 [N]
        P(good), averaged over the posterior.
    variance : float32 [N]
        Of the logit.
    """

    probability: npt.NDArray[np.float32]
    variance: npt.NDArray[np.float32]
    sample: Callable[[Rows], npt.NDArray[np.float32]] = field(repr=False)
    """Rows to probabilities under each draw of the posterior, float32 [n, draws]."""


@dataclass(frozen=True)
class _Draws:
    """Deviations of the posterior's draws from its mode."""

    dense: npt.NDArray[np.float32]
    """Of b, [D, S]."""
    levels: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None]
    """For each active level the mode [K] and the deviations [K, S] of all its clusters."""

    def deviations(self, features: Features, rows: Rows | slice) -> npt.NDArray[np.float32]:
        found = features.dense[rows] @ self.dense
        for level, effects in enumerate(self.levels):
            if effects is not None:
                found += effects[1][features.levels[rows, level]]
        return np.asarray(found, np.float32)


def _draw(fit: Fit, random: np.random.Generator, count: int) -> _Draws:
    """Draw from the posterior exactly, by solving for perturbed right-hand sides."""
    noise = random.standard_normal((len(fit.curvature), count)) * np.sqrt(fit.curvature)[:, None]
    problem = fit.problem
    right = problem.x.T @ noise + np.sqrt(fit.precision)[:, None] * random.standard_normal((len(fit.b), count))
    if fit.factor is None:
        dense, effects = np.linalg.solve(fit.schur, right), np.zeros((0, count))
    else:
        lower = problem.z.T @ noise + np.sqrt(fit.shrink)[:, None] * random.standard_normal((len(fit.g), count))
        dense = np.linalg.solve(fit.schur, right - fit.coupling.T @ lower)
        effects = fit.factor.solve(lower) - fit.coupling @ dense
    levels: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None] = []
    for level, node in enumerate(fit.nodes):
        if node is None:
            levels.append(None)
            continue
        first, found = node
        clusters = len(fit.features.sizes[level])
        deviation = np.sqrt(VARIANCES[fit.tuning.variances[level]])
        # Clusters without an answer follow the prior.
        spread = random.standard_normal((clusters, count)).astype(np.float32) * np.float32(deviation)
        mode = np.zeros(clusters, np.float32)
        mode[found] = fit.g[first : first + len(found)]
        spread[found] = effects[first : first + len(found)]
        levels.append((mode, spread))
    return _Draws(dense.astype(np.float32), levels)


def posterior(fit: Fit, random: np.random.Generator, draws: int, *, calibrated: bool = True) -> Posterior:
    """Return what a fit says of all masks.

    Parameters
    ----------
    draws
        Draws of the posterior; more make the variances less noisy.
    calibrated
        Whether logits are scaled and shifted to fit the leave-one-out predictions of the answers, where there are
        enough of them.
    """
    features = fit.features
    drawn = _draw(fit, random, draws)
    linear = features.dense @ fit.b.astype(np.float32)
    for level, effects in enumerate(drawn.levels):
        if effects is not None:
            linear += effects[0][features.levels[:, level]]
    variance = _variance(features, drawn, fit.tuning)
    shift, slope = _calibration(fit, linear, random) if calibrated else (0.0, 1.0)

    def corrected(p: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        logits = np.clip(logit(np.clip(p, 1e-5, 1 - 1e-5)), -8, 8)
        return np.asarray(expit(shift + slope * logits), np.float32)

    def sample(rows: Rows) -> npt.NDArray[np.float32]:
        return corrected(expit(drawn.deviations(features, rows) + linear[rows, None]))

    return Posterior(corrected(expit(linear / np.sqrt(1 + _AVERAGED * variance))), variance, sample)


def _variance(features: Features, drawn: _Draws, tuning: Tuning) -> npt.NDArray[np.float32]:
    if len(features) <= _SMALL:
        return np.asarray(drawn.deviations(features, slice(None)).var(axis=1), np.float32)
    active = tuning.levels
    if not active:
        some = features.dense[:: max(1, len(features) // 4000)] @ drawn.dense
        return np.full(len(features), some.var(axis=1).mean(), np.float32)
    finest = active[-1]
    deviations = features.means(finest).astype(np.float32) @ drawn.dense
    for level in active:
        effects = drawn.levels[level]
        if effects is not None:
            deviations += effects[1][features.levels[features.representatives[finest], level]]
    return np.asarray(deviations.var(axis=1)[features.levels[:, finest]], np.float32)


_CALIBRATED_FROM = 150
_SHIFT_DEVIATION, _SLOPE_DEVIATION = 0.3, 0.25


def _calibration(fit: Fit, linear: npt.NDArray[np.float32], random: np.random.Generator) -> tuple[float, float]:
    """Return shift and slope of the logits that fit leave-one-out predictions best (J. Platt, 1999).

    The prediction without an answer follows from the posterior with it: taking one Gaussian factor out moves the mean
    to f - v (y - p) / (1 - W v) and the variance to v / (1 - W v).
    """
    if len(fit.rows) < _CALIBRATED_FROM:
        return 0.0, 1.0
    drawn = _draw(fit, random, 100)
    variance = drawn.deviations(fit.features, fit.rows).var(axis=1).astype(np.float64)
    mode = linear[fit.rows].astype(np.float64)
    p = expit(mode)
    kept = np.maximum(1 - p * (1 - p) * variance, 0.2)
    left_out = (mode - variance * (fit.good - p) / kept) / np.sqrt(1 + _AVERAGED * variance / kept)
    x = np.stack([np.ones(len(mode)), np.clip(left_out, -6, 6)], axis=1)
    mean = np.array([0.0, 1.0])
    precision = np.array([_SHIFT_DEVIATION, _SLOPE_DEVIATION]) ** -2.0
    weights = mean.copy()
    for _ in range(20):
        q = expit(x @ weights)
        curvature = (x * (q * (1 - q))[:, None]).T @ x + np.diag(precision)
        step = np.linalg.solve(curvature, x.T @ (fit.good - q) - precision * (weights - mean))
        weights += np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-5:
            break
    return float(weights[0]), float(weights[1])
