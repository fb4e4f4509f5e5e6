"""Laws of splits by speaker and of official lists."""

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold, StratifiedKFold

from speechfeat.errors import ParameterError
from speechfeat.splits import listed_fold, make_folds

RNG = np.random.default_rng(0)
SPEAKERS = np.repeat([f"s{number:02}" for number in range(12)], 20)
EMOTIONS = RNG.choice(["angry", "happy", "sad"], 240, p=[0.2, 0.3, 0.5])


@pytest.mark.parametrize("method", ["logo", "group-k", "group-shuffle"])
def test_no_speaker_is_on_both_sides_and_every_class_is_trained(method: str) -> None:
    for train, test in make_folds(EMOTIONS, SPEAKERS, method):
        assert not set(SPEAKERS[train]) & set(SPEAKERS[test])
        assert sorted([*train, *test]) == list(range(240))
        assert set(EMOTIONS[test]) <= set(EMOTIONS[train])


@pytest.mark.parametrize(("method", "count"), [("logo", 12), ("group-k", 5), ("k", 5)])
def test_each_row_is_tested_once(method: str, count: int) -> None:
    folds = make_folds(EMOTIONS, SPEAKERS, method)
    assert len(folds) == count
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(240))


def test_they_are_the_splits_of_sklearn() -> None:
    for method, splitter in (
        ("logo", LeaveOneGroupOut()),
        ("group-k", StratifiedGroupKFold(4, shuffle=True, random_state=3)),
        ("k", StratifiedKFold(4, shuffle=True, random_state=3)),
    ):
        expected = list(splitter.split(EMOTIONS, EMOTIONS, None if method == "k" else SPEAKERS))
        folds = make_folds(EMOTIONS, SPEAKERS, method, k=4, seed=3)
        assert np.array_equal(np.concatenate(sum(folds, ())), np.concatenate(sum(expected, ())))


def test_the_seed_decides_and_names_do_not() -> None:
    tests = [make_folds(EMOTIONS, SPEAKERS, seed=seed)[0][1] for seed in (0, 0, 1)]
    assert np.array_equal(tests[0], tests[1]) and not np.array_equal(tests[0], tests[2])
    numbers = 30 - np.searchsorted(np.unique(SPEAKERS), SPEAKERS)
    assert np.array_equal(make_folds(EMOTIONS, numbers)[0][1], tests[0])


def test_a_share_of_the_speakers_is_drawn() -> None:
    folds = make_folds(EMOTIONS, SPEAKERS, "group-shuffle", k=3, test_share=0.25)
    assert [len(set(SPEAKERS[test])) for _, test in folds] == [3, 3, 3]


def test_speakers_themselves_are_told_apart_by_rows() -> None:
    for train, test in make_folds(SPEAKERS, method="k", k=4):
        assert set(SPEAKERS[train]) == set(SPEAKERS[test]) == set(SPEAKERS)


@pytest.mark.parametrize(
    ("labels", "groups", "options", "sentence"),
    [
        ("abab", "ssss", {}, "k=5 folds and 2 items of the rarest class"),
        ("abab", "ssss", {"k": 2}, "all of 4 rows are of one group"),
        ("abab", "ssss", {"method": "logo"}, "all of 4 rows are of one group"),
        ("abab", "sstt", {"method": "loso"}, "method='loso' is not known; use logo, group-k, group-shuffle, k"),
        ("abababab", "sstttttt", {"k": 3}, "k=3 folds and 2 groups"),
        ("ababa", None, {"method": "k", "k": 3}, "k=3 folds and 2 items of the rarest class"),
        ("aaab", None, {"method": "k", "k": 2}, "k=2 folds and 1 items of the rarest class"),
        ("abab", None, {"method": "k", "k": 1}, "k=1 folds"),
        ("abab", None, {"method": "logo"}, "method='logo' needs groups"),
        ("aaaa", "sstt", {}, "all of 4 labels are alike"),
        ("", "", {}, r"labels have the shape \(0,\)"),
        ("abab", "sst", {"method": "logo"}, "4 labels and 3 groups"),
        ("abab", ["s", None, "t", None], {"method": "logo"}, "2 of 4 groups are missing, the first in row 1"),
        ("abab", ["s", "", "t", "t"], {"method": "logo"}, "1 of 4 groups are missing"),
        (["a", np.nan, "b", "b"], "sstt", {}, "1 of 4 labels are missing, the first in row 1"),
        ("aabb", "sstt", {"method": "logo"}, "fold 0 tests 'a' but has none of it to train on"),
        ("abab", "sstt", {"method": "group-shuffle", "test_share": 2}, "test_share=2 must be"),
        ("abab", "sstt", {"method": "group-shuffle", "test_share": 0.9}, "cannot split these rows: .* train set"),
    ],
)
def test_impossible_folds_are_refused(labels, groups, options: dict, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        make_folds(list(labels), None if groups is None else list(groups), **options)


IDS = ["yes/1", "yes/2", "no/1", "no/2", "up/1"]


def test_an_official_list() -> None:
    train, test = listed_fold(IDS, ["no/1", "yes/2"], ["up/1", "yes/1"])
    assert (train.tolist(), test.tolist()) == ([0, 4], [1, 2])


def test_what_is_in_no_list_is_trained() -> None:
    train, test = listed_fold(IDS, ["no/1"], left_out=["up/1"])
    assert (train.tolist(), test.tolist()) == ([0, 1, 3], [2])


@pytest.mark.parametrize(
    ("ids", "lists", "sentence"),
    [
        (IDS, {"test": ["maybe/1"]}, r"1 of 1 ids of test are not among the rows, such as \['maybe/1'\]"),
        (IDS, {"test": ["no/1"], "train": ["no/1", "no/2"]}, r"1 ids are in test and in train, such as \['no/1'\]"),
        (IDS, {"test": ["no/1"], "left_out": ["no/1"]}, "in test and in left_out"),
        (IDS, {"test": []}, "5 rows to train on and 0 to test on"),
        (IDS, {"test": IDS}, "0 rows to train on and 5 to test on"),
        ([*IDS, "no/1"], {"test": ["no/1"]}, "1 of 6 ids repeat"),
    ],
)
def test_impossible_lists_are_refused(ids: list, lists: dict, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        listed_fold(ids, **lists)
