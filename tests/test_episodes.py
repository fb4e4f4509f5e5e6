"""Laws of few-shot episodes."""

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

import speechfeat as sf
from speechfeat.heads.episodes import _episodes

RNG = np.random.default_rng(0)
WORDS = np.arange(240) % 8
SPEAKERS = np.arange(240) // 8 % 6


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_what_is_apart_is_told_and_noise_is_chance(metric: str) -> None:
    noise = RNG.standard_normal((240, 16))
    apart = noise + 20 * RNG.standard_normal((8, 16))[WORDS]
    assert sf.few_shot(apart, WORDS, shots=1, episodes=50, metric=metric) == (1, 1, 1)
    # The classes are fixed, and by chance some are nearer to themselves: a little wider than the interval.
    found = sf.few_shot(noise, WORDS, episodes=100, metric=metric)
    assert found.low - 0.03 < 1 / 5 < found.high + 0.03


def test_scores_are_those_of_scikit_learn_over_the_same_episodes() -> None:
    values = RNG.standard_normal((240, 8)) + RNG.standard_normal((8, 8))[WORDS]
    episodes = _episodes(WORDS, None, 8, (3, 2, 4), np.random.default_rng(7))
    accuracies = []
    for _ in range(40):
        support, query = next(episodes)
        assert len(support) == 6 and len(query) == 12 and not set(support) & set(query)
        accuracies.append(NearestCentroid().fit(values[support], WORDS[support]).score(values[query], WORDS[query]))
    found = sf.few_shot(values, WORDS, ways=3, shots=2, queries=4, episodes=40, metric="euclidean", seed=7)
    assert found.score == pytest.approx(np.mean(accuracies))
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(accuracies, ddof=1) / np.sqrt(40))


def test_names_do_not_matter_and_seeds_do() -> None:
    values = RNG.standard_normal((240, 8)) + RNG.standard_normal((8, 8))[WORDS]
    found = sf.few_shot(values, WORDS, episodes=30)
    assert sf.few_shot(values, np.char.add("w", WORDS.astype(str)), episodes=30) == found
    assert sf.few_shot(values, WORDS, episodes=30, seed=1) != found
    # The cosine does not see the length of a vector.
    assert sf.few_shot(values * RNG.uniform(0.5, 2, (240, 1)), WORDS, episodes=30).score == pytest.approx(found.score)


def test_more_shots_are_better() -> None:
    values = RNG.standard_normal((240, 8)) + RNG.standard_normal((8, 8))[WORDS]
    one, five = (sf.few_shot(values, WORDS, shots=shots, episodes=100) for shots in (1, 5))
    assert one.high < five.low


def test_support_and_query_share_no_group() -> None:
    # A word can be told within a language only.
    languages = SPEAKERS // 3
    values = 20 * RNG.standard_normal((2, 8, 32))[languages, WORDS] + RNG.standard_normal((240, 32))
    options = {"ways": 4, "shots": 10, "queries": 4, "episodes": 60, "metric": "euclidean"}
    assert sf.few_shot(values, WORDS, **options).low > 0.9
    assert sf.few_shot(values, WORDS, groups=languages, **options).high < 0.5
    episodes = _episodes(WORDS, SPEAKERS, 8, (4, 10, 4), np.random.default_rng(0))
    for _ in range(20):
        support, query = next(episodes)
        assert not set(SPEAKERS[support]) & set(SPEAKERS[query])
        assert np.array_equal(WORDS[support].reshape(4, 10)[:, 0], WORDS[query].reshape(4, 4)[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 9}, "8 of 8 classes have 5 \\+ 15 examples .*ways=9"),
        ({"shots": 16}, "0 of 8 classes have 16 \\+ 15 examples"),
        ({"ways": 1}, "ways=1 must be at least 2"),
        ({"queries": 0}, "queries=0 must be at least 1"),
        ({"episodes": 1}, "episodes=1 must be at least 2"),
        ({"metric": "dot"}, "metric='dot' is not known; use 'cosine' or 'euclidean'"),
        ({"groups": WORDS}, "no division of 8 groups leaves 5 classes with 5 examples in some groups and 15 in"),
        ({"groups": WORDS * 0}, "no division of 1 groups"),
        ({"groups": WORDS[1:]}, "240 labels and 239 groups do not agree"),
    ],
)
def test_impossible_episodes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        sf.few_shot(np.zeros((240, 4)), WORDS, **options)


def test_shapes_are_checked() -> None:
    with pytest.raises(sf.ParameterError, match=r"shape \(240, 1, 4\), 240 labels and no groups"):
        sf.few_shot(np.zeros((240, 1, 4)), WORDS)
