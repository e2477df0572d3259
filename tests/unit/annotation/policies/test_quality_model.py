import numpy as np
import pytest
from scipy.special import expit

from segloop.annotation.policies.quality_model import (
    VARIANCES,
    WIDTHS,
    Features,
    QualityModel,
    Tuning,
    dense_features,
    posterior,
)


def features_of(n=400, components=2, clusters=(4, 20), seed=0):
    random = np.random.default_rng(seed)
    fine = random.integers(0, clusters[1], n)
    levels = np.stack([fine % clusters[0], fine], axis=1).astype(np.int32)
    dense = np.column_stack([np.ones(n), random.standard_normal((n, 2 + components))]).astype(np.float32)
    return Features(dense, levels)


def answers_of(features, rows, truth_of, seed=1):
    random = np.random.default_rng(seed)
    return random.random(len(rows)) < truth_of(features, rows)


def full_newton(features, rows, good, variances, width):
    """The mode and the log evidence, by plain dense algebra."""
    x = features.dense[rows].astype(float)
    columns, shrink = [x], []
    for level, position in enumerate(variances):
        if VARIANCES[position] > 0:
            found = np.unique(features.levels[rows, level])
            columns.append((features.levels[rows, level][:, None] == found).astype(float))
            shrink += [1 / VARIANCES[position]] * len(found)
    d = x.shape[1] - 3
    precision = np.concatenate([1 / np.array([2, 0.5, 0.5]) ** 2, np.full(d, d / (0.6 * WIDTHS[width]) ** 2), shrink])
    mean = np.concatenate([[0, 0.5, 0.5], np.zeros(len(precision) - 3)])
    a = np.concatenate(columns, axis=1)
    w = mean.copy()
    for _ in range(200):
        p = expit(a @ w)
        hessian = (a * (p * (1 - p))[:, None]).T @ a + np.diag(precision)
        w += 0.5 * np.linalg.solve(hessian, a.T @ (good - p) - precision * (w - mean))
    f = a @ w
    value = -np.logaddexp(0, np.where(good, -f, f)).sum() - 0.5 * (precision * (w - mean) ** 2).sum()
    evidence = value - 0.5 * (np.linalg.slogdet(hessian)[1] - np.log(precision).sum())
    return w, evidence, np.linalg.inv(hessian), a


@pytest.mark.parametrize("variances", [(0, 0), (3, 0), (0, 4), (2, 3)])
def test_the_fit_equals_plain_dense_algebra(variances):
    features = features_of()
    rows = np.arange(0, 400, 2)
    good = answers_of(features, rows, lambda f, r: expit(f.dense[r, 1] + (f.levels[r, 1] % 3 - 1)))
    fit = QualityModel(features).fit(rows, good, Tuning(variances, 2))
    w, evidence, _, _ = full_newton(features, rows, good, variances, 2)
    dense = features.dense.shape[1]
    assert np.allclose(fit.b, w[:dense], atol=2e-3)
    assert np.allclose(fit.g, w[dense:], atol=2e-3)
    assert fit.evidence == pytest.approx(evidence, abs=1e-2)


def test_draws_have_the_covariance_of_the_posterior():
    features = features_of(n=120)
    rows = np.arange(60)
    good = answers_of(features, rows, lambda f, r: expit(f.dense[r, 1]))
    fit = QualityModel(features).fit(rows, good, Tuning((0, 3)))
    w, _, covariance, a = full_newton(features, rows, good, (0, 3), 1)
    found = posterior(fit, np.random.default_rng(0), 8000, calibrated=False)
    variance = np.einsum("ij,jk,ik->i", a, covariance, a)
    assert np.allclose(found.variance[rows], variance, rtol=0.15)
    mean = a @ w
    assert np.allclose(found.probability[rows], expit(mean / np.sqrt(1 + np.pi / 8 * variance)), atol=0.02)
    sampled = found.sample(rows[:5])
    assert sampled.shape == (5, 8000)
    assert np.allclose(sampled.mean(axis=1), found.probability[:5], atol=0.03)


def test_levels_are_switched_on_by_what_they_explain():
    features = features_of(n=3000, clusters=(5, 60))
    rows = np.arange(600)
    sides = np.random.default_rng(5).choice([-3.0, 3.0], 60)
    good = answers_of(features, rows, lambda f, r: expit(sides[f.levels[r, 1]]))
    model = QualityModel(features)
    model.tune(rows, good)
    model.tune(rows, good)
    assert 1 in model.tuning.levels
    idle = QualityModel(features)
    idle.tune(rows, answers_of(features, rows, lambda f, r: expit(0.5 * f.dense[r, 1])))
    assert 1 not in idle.tuning.levels
    few = QualityModel(features)
    few.tune(rows[:99], good[:99])
    assert few.tuning.levels == []


def test_large_sets_take_the_variance_of_clusters():
    random = np.random.default_rng(0)
    n = 21_000
    fine = random.integers(0, 50, n)
    features = Features(
        np.column_stack([np.ones(n), random.standard_normal((n, 2))]).astype(np.float32), fine[:, None].astype(np.int32)
    )
    rows = np.arange(0, 400)
    good = answers_of(features, rows, lambda f, r: expit(2 * (f.levels[r, 0] % 2) - 1.0))
    fit = QualityModel(features).fit(rows, good, Tuning((3,)))
    found = posterior(fit, np.random.default_rng(0), 200, calibrated=False)
    exact = found.sample(np.arange(200))
    spread = np.log(exact / (1 - exact)).var(axis=1)
    # A cluster's mean stands for its members: right on average, not for each.
    assert found.variance[:200].mean() == pytest.approx(spread.mean(), rel=0.3)
    assert len(set(found.variance.tolist())) <= 50


def test_calibration_moves_overconfident_predictions_towards_the_answers():
    features = features_of(n=2000, components=0)
    rows = np.arange(1000)
    good = answers_of(features, rows, lambda f, r: np.full(len(r), 0.5))
    fit = QualityModel(features).fit(rows, good, Tuning((0, 6)))
    plain = posterior(fit, np.random.default_rng(0), 100, calibrated=False)
    mended = posterior(fit, np.random.default_rng(0), 100)
    rest = np.arange(1000, 2000)
    assert np.abs(mended.probability[rest] - 0.5).mean() < np.abs(plain.probability[rest] - 0.5).mean()


def test_dense_features_of_odd_columns():
    score = np.array([0.0, 1.0, 0.5, 0.5], np.float32)
    embedding = np.zeros((4, 3), np.float16)
    embedding[:, 1] = [1, 2, 3, 4]
    found = dense_features(score, embedding, 8)
    # Components without variance are left out.
    assert found.shape == (4, 4)
    assert np.isfinite(found).all()
    assert dense_features(np.full(5, 0.7, np.float32), None, 8).shape == (5, 3)
    assert np.isfinite(dense_features(np.full(1, 0.7, np.float32), None, 8)).all()
