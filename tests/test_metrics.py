"""Laws of the DET curve, of the equal error rate and minDCF on it, and of bootstrap intervals."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from speechfeat.errors import ParameterError
from speechfeat.metrics import bootstrap_interval, det_curve, equal_error_rate, min_dcf

RNG = np.random.default_rng(0)
LABELS = RNG.random(1000) < 0.2
SCORES = RNG.standard_normal(1000) + LABELS


def from_roc(scores: np.ndarray, labels: np.ndarray) -> float:
    accepted, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    return brentq(lambda rate: 1 - rate - np.interp(rate, accepted, found), 0, 1)


ALL_TIES = pytest.mark.parametrize(
    "scores", [SCORES, np.round(SCORES, 1), np.round(SCORES)], ids=["distinct", "ties", "many ties"]
)


@ALL_TIES
def test_the_curve_is_the_roc_curve_of_sklearn(scores: np.ndarray) -> None:
    accepted, found, thresholds = roc_curve(LABELS, scores, drop_intermediate=False)
    curve = det_curve(scores, LABELS)
    assert np.array_equal(curve.thresholds, thresholds)
    assert np.array_equal(curve.false_alarm, accepted)
    assert np.allclose(curve.miss, 1 - found, rtol=0, atol=1e-15)


@ALL_TIES
def test_the_rates_of_a_threshold_are_those_of_the_trials_at_or_above_it(scores: np.ndarray) -> None:
    curve = det_curve(scores, LABELS)
    for threshold, false_alarm, miss in list(zip(*curve, strict=True))[::50]:
        assert false_alarm == pytest.approx((scores[~LABELS] >= threshold).mean())
        assert miss == pytest.approx((scores[LABELS] < threshold).mean())


@ALL_TIES
def test_against_the_roc_curve_of_sklearn(scores: np.ndarray) -> None:
    assert equal_error_rate(scores, LABELS) == pytest.approx(from_roc(scores, LABELS), abs=1e-9)


@ALL_TIES
@pytest.mark.parametrize(("p_target", "c_miss", "c_fa"), [(0.01, 1, 1), (0.05, 1, 1), (0.5, 1, 1), (0.01, 10, 1)])
def test_min_dcf_against_the_roc_curve_of_sklearn(scores: np.ndarray, p_target: float, c_miss: float, c_fa: float):
    accepted, found, _ = roc_curve(LABELS, scores, drop_intermediate=False)
    costs = c_miss * p_target * (1 - found) + c_fa * (1 - p_target) * accepted
    expected = costs.min() / min(c_miss * p_target, c_fa * (1 - p_target))
    assert min_dcf(scores, LABELS, p_target=p_target, c_miss=c_miss, c_fa=c_fa) == pytest.approx(expected, abs=1e-12)


def test_min_dcf_by_hand() -> None:
    scores, labels = [9, 8, 7, 6, 5, 4], [1, 1, 0, 1, 0, 0]
    # Thresholds 9 ... 4: miss 2/3, 1/3, 1/3, 0, 0, 0; false alarms 0, 0, 1/3, 1/3, 2/3, 1.
    # At p = 0.01: 0.01 * 1/3 at threshold 8 against 0.99 * 1/3 at 6; over 0.01, that is 1/3.
    assert min_dcf(scores, labels) == pytest.approx(1 / 3)
    # At p = 0.9: 0.9 * 1/3 = 0.3 at 8, 0.1 * 1/3 at 6; the better of all and none costs 0.1: 1/3 again.
    assert min_dcf(scores, labels, p_target=0.9) == pytest.approx(1 / 3)
    # A miss that costs 99 makes the two priors of 0.01 and 0.99 alike: 1/3 at 8 and at 6.
    assert min_dcf(scores, labels, c_miss=99) == pytest.approx(1 / 3)
    # A non-target above all: every threshold has false alarms of 1/4, which cost 0.99 / 4, and accepting none 0.01.
    assert min_dcf([*scores, 10], [*labels, 0]) == 1


def test_min_dcf_is_between_0_and_1_and_knows_the_order_alone() -> None:
    assert min_dcf(np.arange(10), np.arange(10) >= 7) == 0
    assert min_dcf(-np.arange(10), np.arange(10) >= 7) == 1
    assert min_dcf(np.zeros(10), np.arange(10) >= 7) == 1
    assert 0 < min_dcf(SCORES, LABELS, p_target=0.05) < 1
    assert min_dcf(np.exp(SCORES), LABELS) == min_dcf(SCORES, LABELS)
    curve = det_curve(SCORES, LABELS)
    assert curve.min_dcf(0.05) == min_dcf(SCORES, LABELS, p_target=0.05)
    assert curve.equal_error_rate() == equal_error_rate(SCORES, LABELS)


def test_scores_of_any_kind_of_number() -> None:
    labels = [0, 1, 1, 0, 1]
    expected = equal_error_rate([1.0, 2.0, 3.0, 4.0, 5.0], labels)
    assert equal_error_rate(np.arange(1, 6, dtype=np.uint8), labels) == expected
    assert equal_error_rate([-np.inf, -4, -3, -2, np.inf], labels) == expected
    assert equal_error_rate(np.arange(1, 6, dtype=object), ["0", "1", "1", "0", "1"]) == expected
    assert equal_error_rate(np.array([False, True]), [0, 1]) == 0
    assert len(det_curve([-np.inf, -np.inf, 0], [0, 1, 1]).thresholds) == 3


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
        ([0.1, 0.2], [0, np.nan], "1 of 2 labels are NaN"),
        ([0.1, 0.2], ["other", "same"], "labels must be numbers: could not convert"),
        (["a", "b"], [0, 1], "scores must be numbers: could not convert"),
    ],
)
def test_bad_trials_are_refused(scores: list, labels: list, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        equal_error_rate(scores, labels)


def test_bad_weights_and_costs_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"go down to -1\.0"):
        equal_error_rate([0.1, 0.2], [0, 1], [-1, 1])
    for options in ({"p_target": 0}, {"p_target": 1}, {"c_miss": 0}, {"c_fa": np.nan}):
        with pytest.raises(ParameterError, match="must be between 0 and 1, above 0 and above 0"):
            min_dcf([0.1, 0.2], [0, 1], **options)


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


@pytest.mark.parametrize("statistic", [equal_error_rate, min_dcf, partial(min_dcf, p_target=0.05)])
def test_draws_without_a_target_are_left_out(statistic) -> None:
    scores, labels = SCORES[:40], LABELS[:40].copy()
    labels[2:] = False
    labels[:2] = True  # 13 % of the draws have neither of the two
    low, high = bootstrap_interval(statistic, scores, labels, num=200)
    assert 0 <= low <= statistic(scores, labels) <= high <= 1
    with pytest.raises(ParameterError, match=r"all of 1000 draws \(none of 40 trials is a target"):
        bootstrap_interval(statistic, scores, np.zeros(40))


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
