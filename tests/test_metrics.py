"""Laws of the equal error rate and of bootstrap intervals."""

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from speechfeat.errors import ParameterError
from speechfeat.metrics import bootstrap_interval, equal_error_rate

RNG = np.random.default_rng(0)
LABELS = RNG.random(1000) < 0.2
SCORES = RNG.standard_normal(1000) + LABELS


def from_roc(scores: np.ndarray, labels: np.ndarray) -> float:
    accepted, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    return brentq(lambda rate: 1 - rate - np.interp(rate, accepted, found), 0, 1)


@pytest.mark.parametrize(
    "scores", [SCORES, np.round(SCORES, 1), np.round(SCORES)], ids=["distinct", "ties", "many ties"]
)
def test_against_the_roc_curve_of_sklearn(scores: np.ndarray) -> None:
    assert equal_error_rate(scores, LABELS) == pytest.approx(from_roc(scores, LABELS), abs=1e-9)


def test_separable_scores() -> None:
    labels = np.arange(10) >= 7
    assert equal_error_rate(np.arange(10), labels) == 0
    assert equal_error_rate(-np.arange(10), labels) == 1
    assert equal_error_rate(np.arange(2), [0, 1]) == 0


def test_scores_that_tell_nothing() -> None:
    assert equal_error_rate(np.zeros(10), np.arange(10) >= 7) == pytest.approx(0.5)


@pytest.mark.parametrize("scores", [SCORES, np.round(SCORES)], ids=["distinct", "ties"])
def test_symmetry(scores: np.ndarray) -> None:
    rate = equal_error_rate(scores, LABELS)
    assert equal_error_rate(-scores, ~LABELS) == pytest.approx(rate)
    assert equal_error_rate(scores, ~LABELS) == pytest.approx(1 - rate)


def test_only_the_order_of_scores_and_the_balance_of_each_kind_matter() -> None:
    rate = equal_error_rate(SCORES, LABELS)
    shuffled = RNG.permutation(1000)
    assert equal_error_rate(np.exp(SCORES), LABELS) == rate
    assert equal_error_rate(SCORES[shuffled], LABELS[shuffled]) == rate
    assert equal_error_rate(SCORES, LABELS, np.where(LABELS, 1, 7)) == pytest.approx(rate)


def test_a_weight_is_a_number_of_repeats() -> None:
    counts = RNG.integers(3, size=1000)
    repeated = equal_error_rate(np.repeat(SCORES, counts), np.repeat(LABELS, counts))
    assert equal_error_rate(SCORES, LABELS, counts) == pytest.approx(repeated)


@pytest.mark.parametrize(
    ("scores", "labels", "sentence"),
    [
        ([0.1, 0.2], [1, 1], "none of 2 trials is a non-target"),
        ([0.1, 0.2], [0, 0], "none of 2 trials is a target"),
        ([], [], "none of 0 trials is a target"),
        ([0.1, 0.2], [0, 1, 1], r"shapes \(2,\), \(3,\)"),
        ([[0.1, 0.2]], [[0, 1]], r"must be \[n\]"),
        ([0.1, np.nan], [0, 1], "1 of 2 scores are NaN"),
    ],
)
def test_bad_trials_are_refused(scores: list, labels: list, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        equal_error_rate(scores, labels)


def test_the_interval_of_a_constant_is_a_point() -> None:
    assert bootstrap_interval(np.mean, np.full(50, 3.0)) == (3, 3)


def test_the_interval_of_a_mean_is_that_of_its_normal_distribution() -> None:
    values = RNG.standard_normal(400)
    low, high = bootstrap_interval(np.mean, values, num=4000)
    reach = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.1 * reach)
    inner_low, inner_high = bootstrap_interval(np.mean, values, level=0.5)
    assert low < inner_low < inner_high < high


def test_arrays_are_drawn_together_and_the_seed_decides() -> None:
    one = RNG.standard_normal(30)
    assert bootstrap_interval(lambda a, b: float(np.abs(a - b).max()), one, one) == (0, 0)
    assert bootstrap_interval(np.mean, one, seed=1) == bootstrap_interval(np.mean, one, seed=1)
    assert bootstrap_interval(np.mean, one, seed=1) != bootstrap_interval(np.mean, one, seed=2)


def test_groups_whose_items_are_alike_make_the_interval_wider() -> None:
    speakers = np.repeat(np.arange(20), 30)
    values = RNG.standard_normal(20)[speakers] + 0.1 * RNG.standard_normal(600)
    by_item, by_speaker = (np.subtract(*bootstrap_interval(np.mean, values, groups=g)) for g in (None, speakers))
    assert abs(by_speaker) > 3 * abs(by_item)


def test_groups_of_one_are_items() -> None:
    values = RNG.standard_normal(30)
    assert bootstrap_interval(np.mean, values, groups=np.arange(30)) == bootstrap_interval(np.mean, values)


def test_groups_stay_whole() -> None:
    names = np.array(["b", "a", "b", "c", "a", "b"])

    def is_whole(drawn: np.ndarray) -> float:
        counts = {name: int((drawn == name).sum()) for name in "abc"}
        return float(counts["a"] % 2 == 0 and counts["b"] % 3 == 0)

    assert bootstrap_interval(is_whole, names, groups=names) == (1, 1)


def test_draws_without_a_value_are_left_out() -> None:
    values = np.array([np.nan, 1.0, 1.0])
    assert bootstrap_interval(np.mean, values) == (1, 1)
    with pytest.raises(ParameterError, match="NaN for all of 1000"):
        bootstrap_interval(np.mean, values[:1])


@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        ([[1, 2], [1, 2, 3]], {}, r"\[2, 3\] items"),
        ([[1, 2]], {"groups": [1]}, r"\[2, 1\] items"),
        ([[]], {}, r"\[0\] items"),
        ([], {}, r"\[\] items"),
        ([[1, 2]], {"num": 0}, "num=0"),
        ([[1, 2]], {"level": 95}, "level=95"),
    ],
)
def test_bad_bootstraps_are_refused(arrays: list, options: dict, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        bootstrap_interval(np.mean, *arrays, **options)
