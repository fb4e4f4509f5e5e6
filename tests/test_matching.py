"""Projections of speech and text into one space, and how retrieval is scored."""

import json
from pathlib import Path

import numpy as np
import pytest

import speechfeat as sf

SMALL = sf.MatchConfig(dim=16, hidden=32, dropout=0.0, epochs=30, patience=30, batch_size=32)


def make_pairs(texts: int, each: int, seed: int) -> sf.Pairs:
    """Speech and text that show the same eight numbers, each in a way of its own, beside noise."""
    shared = np.random.default_rng(7)
    heard, written = shared.standard_normal((8, 12)), shared.standard_normal((8, 10))
    rng = np.random.default_rng(seed)
    meaning = np.repeat(rng.standard_normal((texts, 8)), each, axis=0)
    speech = 100 * (meaning @ heard + 0.1 * rng.standard_normal((len(meaning), 12))) + 1000
    return sf.Pairs(speech, meaning @ written, [f"{seed}-{number // each}" for number in range(len(meaning))])


@pytest.fixture(scope="module")
def matcher() -> sf.Matcher:
    return sf.train_matcher(make_pairs(200, 2, 0), make_pairs(40, 1, 1), SMALL)


def test_what_is_new_is_found_in_both_directions(matcher: sf.Matcher) -> None:
    pairs = make_pairs(50, 1, 2)
    speech, text = matcher.speech(pairs.speech), matcher.text(pairs.text)
    assert np.allclose(np.linalg.norm(speech, axis=1), 1, atol=1e-5)
    for scores in (speech @ text.T, text @ speech.T):
        ranks = sf.retrieval_ranks(scores, pairs.names, pairs.names)
        assert sf.recall(ranks, 1) > 0.6
        assert sf.recall(ranks, 10) > 0.95
    assert matcher.about["validation_mrr"] > 0.6


def test_shuffled_pairs_teach_nothing() -> None:
    pairs, new = make_pairs(200, 1, 0), make_pairs(50, 1, 2)
    mixed = sf.Pairs(pairs.speech, np.random.default_rng(0).permutation(pairs.text), pairs.names)
    found = sf.train_matcher(mixed, new, SMALL)
    ranks = sf.retrieval_ranks(found.speech(new.speech) @ found.text(new.text).T, new.names, new.names)
    assert sf.recall(ranks, 1) < 0.2


def test_the_same_seed_gives_the_same_matcher_and_leaves_torch_alone(matcher: sf.Matcher) -> None:
    again = sf.train_matcher(make_pairs(200, 2, 0), make_pairs(40, 1, 1), SMALL)
    pairs = make_pairs(5, 1, 3)
    assert np.array_equal(again.speech(pairs.speech), matcher.speech(pairs.speech))


def test_saved_and_loaded_it_gives_the_same(matcher: sf.Matcher, tmp_path: Path) -> None:
    matcher.save(tmp_path / "m")
    matcher.save(tmp_path / "m")  # over itself
    pairs, found = make_pairs(5, 1, 3), sf.load_matcher(tmp_path / "m")
    assert np.array_equal(found.speech(pairs.speech), matcher.speech(pairs.speech))
    assert np.array_equal(found.text(pairs.text), matcher.text(pairs.text))
    assert (found.config, found.dims, found.about) == (matcher.config, matcher.dims, matcher.about)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["matcher.json", "matcher.safetensors"]


def test_a_damaged_matcher_is_explained(matcher: sf.Matcher, tmp_path: Path) -> None:
    with pytest.raises(sf.ModelError, match=r"no matcher: it has no matcher\.json"):
        sf.load_matcher(tmp_path)
    matcher.save(tmp_path)
    record = json.loads((tmp_path / "matcher.json").read_text())
    (tmp_path / "matcher.json").write_text(json.dumps({**record, "dims": [3, 4]}))
    with pytest.raises(sf.ModelError, match="is damaged"):
        sf.load_matcher(tmp_path)
    (tmp_path / "matcher.json").write_text(json.dumps({**record, "format": 9}))
    with pytest.raises(sf.ModelError, match="has format 9, this version reads 1"):
        sf.load_matcher(tmp_path)


def test_ranks_count_ties_against_the_right_and_names_once() -> None:
    scores = [[0.5, 0.9, 0.1, 0.5], [0.3, 0.3, 0.3, 0.3]]
    assert sf.retrieval_ranks(scores, ["a", "b"], ["a", "b", "c", "d"]).tolist() == [3, 4]
    # The two of "b" are one item, as good as the better of them.
    assert sf.retrieval_ranks(scores, ["a", "b"], ["a", "b", "c", "b"]).tolist() == [2, 3]
    assert sf.recall([1, 2, 3, 11], 10) == 0.75


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sf.retrieval_ranks([[1.0]], ["a"], ["b"]), "nothing right in the gallery, such as 'a'"),
        (lambda: sf.retrieval_ranks([1.0], ["a"], ["a"]), r"give \[n, m\]"),
        (lambda: sf.MatchConfig(dropout=1.0), "dropout=1.0 must be above 0 and from 0 to below 1"),
        (lambda: sf.MatchConfig(batch_size=1), "batch_size=1 must be at least 2"),
        (lambda: sf.train_matcher(make_pairs(1, 4, 0), make_pairs(4, 1, 1)), "train: 4 pairs of 1 texts"),
        (
            lambda: sf.train_matcher(make_pairs(4, 1, 0), sf.Pairs(np.ones((4, 3)), np.ones((4, 10)), list("abcd"))),
            "validation: 3 and 10 dimensions are not those",
        ),
        (
            lambda: sf.train_matcher(sf.Pairs(np.ones((4, 3)), np.ones((5, 3)), list("abcd")), make_pairs(4, 1, 1)),
            r"train: speech \(4, 3\) and text \(5, 3\) must be n rows of 4 names",
        ),
    ],
)
def test_a_bad_call_gets_one_sentence(call, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        call()


def test_embeddings_of_another_size_are_refused(matcher: sf.Matcher) -> None:
    with pytest.raises(sf.ParameterError, match=r"give \[n, 10\]"):
        matcher.text(np.ones((2, 12)))
