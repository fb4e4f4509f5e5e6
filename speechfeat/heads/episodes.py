"""Few-shot and one-shot classification: N-way K-shot episodes, with the interval of their mean.

Where the support set and the query set are given, `Prototypes` does it:

    answers = Prototypes("cosine").fit(support, support_labels).predict(query)
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from speechfeat.errors import ParameterError
from speechfeat.heads.classifiers import check_metric, class_means, distances
from speechfeat.probing import LayerScore

# Divisions of the groups that are tried before an episode is given up.
MOST_TRIES = 200


def few_shot(
    embeddings: np.ndarray,
    labels: ArrayLike,
    *,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    episodes: int = 600,
    metric: str = "cosine",
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> LayerScore:
    """Accuracy of nearest class means over episodes, as few-shot learning is scored (Snell et al., 2017).

    An episode draws some of the classes and of each a few examples as its support set, whose means are the prototypes,
    and others as its query set, which is answered by the nearest prototype. Nothing is learnt beside that, and
    embeddings are taken as they are: where they share a large offset, as those of most encoders do, take the mean of
    other data off them first, or the dimensions' standard deviation too.

    The interval is that of the mean over the episodes drawn (1.96 standard errors); that other classes or speakers
    would be harder or easier is not in it.

    Args:
        embeddings: `[n, D']`.
        labels: `[n]`.
        ways: classes of an episode.
        shots: examples of each class in the support set; 1 for one-shot.
        queries: examples of each class in the query set.
        episodes: that are drawn.
        metric: "cosine" or "euclidean", see `Prototypes`.
        groups: `[n]`, such as speakers: the support set and the query set of an episode then share no group.
        seed: of all that is drawn.

    Raises:
        ParameterError: if a number is out of range, shapes do not agree, or too few classes have examples enough.

    Example:
        one_shot = few_shot(X - X_other.mean(axis=0), words, ways=5, shots=1, groups=speakers)
    """
    check_metric(metric)
    _check_numbers(ways=(ways, 2), shots=(shots, 1), queries=(queries, 1), episodes=(episodes, 2))
    values = np.asarray(embeddings)
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    units = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if values.ndim != 2 or len(values) != len(codes) or (units is not None and len(units) != len(codes)):
        raise ParameterError(
            f"embeddings of the shape {values.shape}, {len(codes)} labels and "
            f"{'no' if units is None else len(units)} groups do not agree; give [n, D'] and n of each"
        )
    right = np.repeat(np.arange(ways), queries)
    drawn = _episodes(codes, units, len(names), (ways, shots, queries), np.random.default_rng(seed))
    scores = np.empty(episodes)
    for index in range(episodes):
        support, query = next(drawn)
        prototypes = class_means(values[support], np.repeat(np.arange(ways), shots), metric)
        answers = distances(values[query], prototypes, metric).argmin(axis=1)
        scores[index] = (answers == right).mean()
    reach = 1.96 * scores.std(ddof=1) / np.sqrt(episodes)
    mean = scores.mean()
    return LayerScore(float(mean), float(max(mean - reach, 0)), float(min(mean + reach, 1)))


def _episodes(
    codes: np.ndarray, units: np.ndarray | None, num_classes: int, sizes: tuple[int, int, int], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of support sets, `[ways * shots]`, and of query sets, `[ways * queries]`, class by class, without end."""
    ways, shots, queries = sizes
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=num_classes))[:-1])
    able = np.array([len(own) >= shots + queries for own in rows])
    if able.sum() < ways:
        raise ParameterError(
            f"{int(able.sum())} of {num_classes} classes have {shots} + {queries} examples (shots + queries), and "
            f"ways={ways} are asked for; ask for fewer ways, shots or queries"
        )
    while True:
        is_support, is_query, possible = _sides(codes, units, able, sizes, rng)
        chosen = rng.choice(np.flatnonzero(possible), ways, replace=False)
        support, query = [], []
        for one in chosen:
            own = rng.permutation(rows[one])
            first = own[is_support[own]][:shots]
            support.append(first)
            rest = own if units is not None else own[shots:]
            query.append(rest[is_query[rest]][:queries])
        yield np.concatenate(support), np.concatenate(query)


def _sides(
    codes: np.ndarray,
    units: np.ndarray | None,
    able: np.ndarray,
    sizes: tuple[int, int, int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows the support set and the query set may be of, and which classes have enough in both."""
    ways, shots, queries = sizes
    if units is None:
        everything = np.ones(len(codes), bool)
        return everything, everything, able
    num = int(units.max()) + 1
    for _ in range(MOST_TRIES if num > 1 else 0):
        # Any share of the groups: few of them may hold all that a support set needs.
        taken = np.isin(np.arange(num), rng.permutation(num)[: rng.integers(1, num)])[units]
        inside = np.bincount(codes[taken], minlength=len(able)) >= shots
        possible = inside & (np.bincount(codes[~taken], minlength=len(able)) >= queries)
        if possible.sum() >= ways:
            return taken, ~taken, possible
    raise ParameterError(
        f"no division of {num} groups leaves {ways} classes with {shots} examples in some groups and {queries} in the "
        "others; ask for fewer ways, shots or queries, or give no groups"
    )


def _check_numbers(**numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if value < least:
            raise ParameterError(f"{name}={value} must be at least {least}")
