"""Laws of probes and verification, on made embeddings: layer 0 is noise, layer 1 tells the label."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut

from speechfeat.errors import ParameterError
from speechfeat.metrics import equal_error_rate
from speechfeat.probing import accuracy, average_recall, probe_layers, verify_layers

RNG = np.random.default_rng(0)
SPEAKERS = np.repeat(np.arange(6), 20)
WORDS = np.tile(np.array(["yes", "no", "stop", "go"]), 30)


def telling(labels: np.ndarray) -> np.ndarray:
    """`[n, 2, 8]` float32, far from zero and of unlike scales."""
    codes = np.unique(labels, return_inverse=True)[1]
    values = RNG.standard_normal((len(labels), 2, 8))
    values[:, 1] += 6 * RNG.standard_normal((codes.max() + 1, 8))[codes]
    return (values * np.logspace(-2, 3, 8) + 50).astype(np.float32)


def folds(values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(LeaveOneGroupOut().split(values, groups=SPEAKERS))


def test_a_layer_scores_what_it_tells() -> None:
    values = telling(WORDS)
    noise, word = probe_layers(values, WORDS, folds(values), groups=SPEAKERS)
    assert word.score > 0.95 > 0.5 > noise.score
    assert word.low <= word.score <= word.high
    assert noise.low < noise.score < noise.high


def test_scores_do_not_depend_on_scale_or_on_names() -> None:
    values = telling(WORDS)
    renamed = np.char.add("word ", WORDS)
    expected = probe_layers(values, WORDS, folds(values), num=5)
    assert probe_layers(values * 1024, renamed, folds(values), num=5) == expected


def test_rows_of_a_train_and_test_split_alone_are_scored() -> None:
    values = telling(WORDS)
    split = (np.arange(60), np.arange(60, 100))
    expected = probe_layers(values, WORDS, [split])
    values[100:] = np.nan
    assert probe_layers(values, WORDS, [split]) == expected


def test_average_recall_is_the_balanced_accuracy() -> None:
    classes = RNG.integers(3, size=200) ** 2
    answers = np.where(RNG.random(200) < 0.6, classes, 1)
    assert average_recall(answers == classes, classes) == pytest.approx(balanced_accuracy_score(classes, answers))
    assert accuracy(answers == classes, classes) == (answers == classes).mean()


def test_verification_is_the_equal_error_rate_of_all_pairs() -> None:
    values = telling(SPEAKERS)
    noise, speaker = verify_layers(values, SPEAKERS)
    assert speaker.score < 0.2 < 0.4 < noise.score
    assert noise.low < noise.score < noise.high
    standard = (values - values.mean(0)) / values.std(0)
    pairs = [(i, j) for i in range(120) for j in range(i)]
    for layer, found in enumerate((noise, speaker)):
        unit = standard[:, layer] / np.linalg.norm(standard[:, layer], axis=1, keepdims=True)
        cosines = [unit[i] @ unit[j] for i, j in pairs]
        expected = equal_error_rate(cosines, [SPEAKERS[i] == SPEAKERS[j] for i, j in pairs])
        assert found.score == pytest.approx(expected, abs=1e-4)


def test_a_speaker_with_one_utterance_is_an_impostor_only() -> None:
    values = telling(SPEAKERS)
    kept = np.flatnonzero((SPEAKERS != 5) | (np.arange(120) == 119))
    for found in verify_layers(values[kept], SPEAKERS[kept]):
        assert 0 <= found.low <= found.score <= found.high <= 1


def test_a_dimension_that_never_changes_is_borne() -> None:
    values = telling(SPEAKERS)
    values[..., 0] = 7
    assert all(np.isfinite(found).all() for found in verify_layers(values, SPEAKERS, num=5))


def test_bad_calls_are_refused() -> None:
    values = telling(WORDS)
    with pytest.raises(ParameterError, match=r"shape \(120, 8\)"):
        probe_layers(values[:, 0], WORDS, folds(values))
    with pytest.raises(ParameterError, match="119 speakers"):
        verify_layers(values, SPEAKERS[1:])
    with pytest.raises(ParameterError, match="metric='f1'"):
        probe_layers(values, WORDS, folds(values), metric="f1")
    with pytest.raises(ParameterError, match="no fold"):
        probe_layers(values, WORDS, [])
    with pytest.raises(ParameterError, match="alike"):
        probe_layers(values, np.zeros(120), folds(values))
    with pytest.raises(ParameterError, match="none of 7140 trials is a non-target"):
        verify_layers(values, np.zeros(120))
