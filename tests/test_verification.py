"""Laws of adaptive score normalisation."""

import numpy as np
import pytest

from speechfeat.errors import ParameterError
from speechfeat.metrics import equal_error_rate
from speechfeat.verification import as_norm

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((5, 7))
ENROL, TEST = RNG.standard_normal((5, 40)), RNG.standard_normal((7, 50))


def one_by_one(score: float, enrol: np.ndarray, test: np.ndarray, top: int) -> float:
    sides = [np.sort(cohort)[::-1][:top] for cohort in (enrol, test)]
    return sum((score - side.mean()) / side.std() for side in sides) / 2


def test_against_a_loop_over_trials() -> None:
    normed = as_norm(SCORES, ENROL, TEST, top=10)
    expected = [[one_by_one(SCORES[e, t], ENROL[e], TEST[t], 10) for t in range(7)] for e in range(5)]
    assert np.allclose(normed, expected, rtol=1e-12)


def test_by_hand() -> None:
    # The two highest of each side: 4 and 2, mean 3, deviation 1; 1 and -1, mean 0, deviation 1.
    assert as_norm([5], [[4, 2, -9]], [[-1, 1, -8]], top=2).tolist() == [((5 - 3) / 1 + (5 - 0) / 1) / 2]


def test_trials_name_rows() -> None:
    trials = np.array([[4, 0], [0, 6], [4, 0], [2, 2]])
    listed = as_norm(SCORES[trials[:, 0], trials[:, 1]], ENROL, TEST, trials=trials, top=10)
    assert np.array_equal(listed, as_norm(SCORES, ENROL, TEST, top=10)[trials[:, 0], trials[:, 1]])
    diagonal = as_norm(np.diag(SCORES), ENROL, TEST[:5], top=10)
    assert np.array_equal(diagonal, np.diag(as_norm(SCORES, ENROL, TEST, top=10)))


def test_level_and_scale_of_all_scores_do_not_matter() -> None:
    assert np.allclose(
        as_norm(SCORES, ENROL, TEST, top=10), as_norm(3 * SCORES + 1, 3 * ENROL + 1, 3 * TEST + 1, top=10)
    )


def test_the_whole_cohort_is_the_plain_s_norm() -> None:
    s_norm = (
        (SCORES - ENROL.mean(axis=1)[:, None]) / ENROL.std(axis=1)[:, None]
        + (SCORES - TEST[:, :40].mean(axis=1)) / TEST[:, :40].std(axis=1)
    ) / 2
    assert np.allclose(as_norm(SCORES, ENROL, TEST[:, :40], top=40), s_norm)


def test_it_evens_out_enrolments_that_score_high_with_everybody() -> None:
    speakers = np.repeat(np.arange(20), 5)
    level = 3 * RNG.standard_normal(20)
    raw = level[:, None] + (np.arange(20)[:, None] == speakers) * 3.0 + RNG.standard_normal((20, 100))
    cohorts = level[:, None] + RNG.standard_normal((20, 400)), RNG.standard_normal((100, 400))
    same = (np.arange(20)[:, None] == speakers).ravel()
    normed = as_norm(raw, *cohorts, top=100)
    assert equal_error_rate(normed.ravel(), same) < equal_error_rate(raw.ravel(), same) - 0.05


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((SCORES, ENROL, TEST), {}, "top=300 must be from 2 to the size of the cohort, 40 in enrol_cohort"),
        ((SCORES, ENROL, TEST), {"top": 1}, "top=1 must be"),
        ((SCORES.T, ENROL, TEST), {"top": 10}, r"scores \(7, 5\) with trials None do not fit 5 enrolments and 7 tests"),
        ((SCORES[0], ENROL, TEST), {"top": 10}, "the trials are of rows 0 to .6, 6., but .* 5 and 7 rows"),
        ((SCORES[0], ENROL, TEST), {"top": 10, "trials": [[0, 1]]}, r"trials \(1, 2\) do not fit"),
        (([1.0], ENROL, TEST), {"top": 10, "trials": [[0.0, 1.0]]}, "row numbers"),
        (([1.0], ENROL, TEST), {"top": 10, "trials": [[-1, 1]]}, "rows -1 to"),
        ((SCORES, ENROL[0], TEST), {"top": 10}, r"enrol_cohort has the shape \(40,\)"),
        ((SCORES, np.ones((5, 40)), TEST), {"top": 10}, "10 highest scores of 5 rows of enrol_cohort are all alike"),
        ((SCORES, ENROL, np.full((7, 40), np.inf)), {"top": 10}, "test_cohort are not all finite"),
        ((SCORES, ENROL, np.full((7, 40), np.nan)), {"top": 10}, "280 of 280 test_cohort are NaN"),
    ],
)
def test_bad_cohorts_are_refused(arguments: tuple, options: dict, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        as_norm(*arguments, **options)
