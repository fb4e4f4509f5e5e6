"""Laws of the scores of answers, against scikit-learn and by hand."""

import warnings
from functools import partial

import numpy as np
import pytest
from sklearn import metrics

from speechfeat.classification import accuracy, average_recall, confusion_matrix, macro_f1, top_k_accuracy
from speechfeat.errors import ParameterError
from speechfeat.metrics import bootstrap_interval

RNG = np.random.default_rng(0)
NAMES = np.array(["angry", "happy", "neutral", "sad"])
LABELS = RNG.choice(NAMES, 300, p=[0.1, 0.2, 0.3, 0.4])
ANSWERS = np.where(RNG.random(300) < 0.6, LABELS, RNG.choice(NAMES, 300))
SCORES = RNG.standard_normal((300, 4)) + 2 * (LABELS[:, None] == NAMES)


def test_against_sklearn() -> None:
    assert accuracy(LABELS, ANSWERS) == metrics.accuracy_score(LABELS, ANSWERS)
    assert average_recall(LABELS, ANSWERS) == metrics.recall_score(LABELS, ANSWERS, average="macro")
    assert macro_f1(LABELS, ANSWERS) == metrics.f1_score(LABELS, ANSWERS, average="macro")
    assert np.array_equal(confusion_matrix(LABELS, ANSWERS), metrics.confusion_matrix(LABELS, ANSWERS))
    codes = np.searchsorted(NAMES, LABELS)
    for k in (1, 2, 3):
        assert top_k_accuracy(codes, SCORES, k) == metrics.top_k_accuracy_score(codes, SCORES, k=k)


def test_by_hand() -> None:
    labels, answers = list("aaaabb"), list("aaabba")
    assert accuracy(labels, answers) == pytest.approx(4 / 6)
    assert average_recall(labels, answers) == pytest.approx((3 / 4 + 1 / 2) / 2)
    # F1 = 2 * right / (items + answers): a 2 * 3 / (4 + 4), b 2 * 1 / (2 + 2).
    assert macro_f1(labels, answers) == pytest.approx((6 / 8 + 2 / 4) / 2)
    table = confusion_matrix(labels, answers)
    assert (table.loc["a", "a"], table.loc["a", "b"], table.loc["b", "a"], table.loc["b", "b"]) == (3, 1, 1, 1)
    assert (table.index.name, table.columns.name) == ("label", "answer")
    assert confusion_matrix(labels, answers, normalize=True).loc["a"].tolist() == [0.75, 0.25]


def test_the_diagonal_of_the_normalised_matrix_is_the_recalls() -> None:
    shares = confusion_matrix(LABELS, ANSWERS, normalize=True).to_numpy()
    assert np.diag(shares).mean() == pytest.approx(average_recall(LABELS, ANSWERS))
    assert np.allclose(shares.sum(axis=1), 1)


def test_recall_knows_nothing_of_classes_that_have_no_item() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert average_recall([0, 0, 1, 1], [0, 2, 1, 1]) == 0.75
        assert macro_f1([0, 0, 1, 1], [0, 2, 1, 1]) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_recall_is_free_of_the_balance_of_classes() -> None:
    often = np.repeat(np.arange(300), np.where(LABELS == "sad", 5, 1))
    assert average_recall(LABELS[often], ANSWERS[often]) == pytest.approx(average_recall(LABELS, ANSWERS))
    assert average_recall(LABELS, np.full(300, "sad")) == 0.25


def test_top_k_by_hand() -> None:
    scores = [[3, 2, 1], [3, 2, 1], [1, 2, 3]]
    assert [top_k_accuracy([0, 1, 0], scores, k) == pytest.approx(v) for k, v in ((1, 1 / 3), (2, 2 / 3), (3, 1))]
    # Classes in an order of their own, and two alone.
    assert top_k_accuracy(["b", "a"], [[0.9, 0.1], [0.8, 0.2]], 1, classes=["b", "a"]) == 0.5


def test_top_k_rises_to_1_and_ties_are_no_answer() -> None:
    rates = [top_k_accuracy(LABELS, SCORES, k, classes=NAMES) for k in (1, 2, 3, 4)]
    assert rates == sorted(rates) and rates[-1] == 1
    assert rates[0] == accuracy(LABELS, NAMES[SCORES.argmax(axis=1)])
    assert top_k_accuracy(LABELS, np.zeros((300, 4)), 3, classes=NAMES) == 0


@pytest.mark.parametrize("statistic", [accuracy, average_recall, macro_f1])
def test_intervals(statistic) -> None:
    speakers = np.arange(300) // 30
    low, high = bootstrap_interval(statistic, LABELS, ANSWERS, groups=speakers, num=50)
    assert low < statistic(LABELS, ANSWERS) < high
    ranked = partial(top_k_accuracy, k=2, classes=NAMES)
    low, high = bootstrap_interval(ranked, LABELS, SCORES, groups=speakers, num=50)
    assert low < ranked(LABELS, SCORES) < high


@pytest.mark.parametrize("statistic", [accuracy, average_recall, macro_f1, confusion_matrix])
@pytest.mark.parametrize(
    ("labels", "answers", "sentence"),
    [
        ([1, 2], [1], r"labels \(2,\) and answers \(1,\)"),
        ([], [], "n above 0"),
        ([[1]], [[1]], r"must be \[n\]"),
        (["a", None], ["a", "a"], "1 of 2 labels are missing"),
        ([1.0, 0.0], [1.0, np.nan], "1 of 2 answers are missing"),
        (["a", "b"], [0, 1], "labels such as 'a' and answers such as 0 must both be names or numbers"),
    ],
)
def test_bad_answers_are_refused(statistic, labels: list, answers: list, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        statistic(labels, answers)


@pytest.mark.parametrize(
    ("labels", "scores", "options", "sentence"),
    [
        ([0, 1], [[1, 2]], {}, r"labels \(2,\) and scores \(1, 2\)"),
        ([0], [1], {}, r"must be \[n\] and \[n, C\]"),
        ([0], [[1, np.nan]], {}, "1 of 2 scores are NaN"),
        ([0], [[1, 2]], {"k": 3}, "k=3 must be from 1 to the number of classes, 2"),
        ([2], [[1, 2]], {"k": 1}, r"the label 2 is none of the classes \[0, 1\]"),
        (["a"], [[1, 2]], {"k": 1, "classes": ["a"]}, "1 classes for 2 columns"),
        (["a"], [[1, 2]], {"k": 1, "classes": ["a", "a"]}, "name each column once"),
    ],
)
def test_bad_scores_are_refused(labels: list, scores: list, options: dict, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        top_k_accuracy(labels, scores, **options)
