"""Laws of heads on embeddings and of what they choose for themselves."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score, log_loss, recall_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.neighbors import NearestCentroid
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import speechfeat as sf
from speechfeat.heads.classifiers import Discriminant, SoftmaxSVC, likeliest_temperature
from speechfeat.heads.estimators import POOLED_KINDS, TunedClassifier, inner_folds
from speechfeat.heads.pooled import PooledHead
from tests.embedded import DIM, LAYERS, WORDS, write_embeddings

# Enough for what is made here.
QUICK = {"mlp": {"max_iter": 30, "hidden_layer_sizes": (16,), "learning_rate_init": 0.01}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> sf.Store:
    return write_embeddings(tmp_path_factory.mktemp("train") / "s")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> sf.Store:
    """Utterances that nothing was trained on."""
    return write_embeddings(tmp_path_factory.mktemp("test") / "s", seed=5)


def blobs(seed=0, num=120, dim=5, classes=3, gap=1.5):
    """`[n, D]` and class numbers."""
    rng = np.random.default_rng(seed)
    codes = np.arange(num) % classes
    return rng.standard_normal((num, dim)) + gap * rng.standard_normal((classes, dim))[codes], codes


@parametrize_with_checks([sf.Prototypes(), sf.Prototypes("euclidean"), sf.pooled_head("prototype")])
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize("kind", POOLED_KINDS)
def test_every_kind_tells_words_of_other_utterances(store: sf.Store, others: sf.Store, kind: str) -> None:
    head = sf.train_head(store, "word", kind, groups="speaker", layers=2, **QUICK.get(kind, {}))
    shares = head.probabilities(others)
    assert shares.shape == (len(others), 3) and np.allclose(shares.sum(axis=1), 1)
    answers = head.predict(others)
    assert head.classes == sorted(WORDS) and answers["id"].tolist() == others.ids
    # The best that can be told of classes that overlap so is 0.93.
    assert balanced_accuracy_score(others.table()["word"], answers["label"]) > 0.8
    few = [others.ids[5], others.ids[1]]
    assert np.allclose(head.probabilities(others, few), shares[[5, 1]])


def test_probabilities_come_straight_from_arrays(store: sf.Store, others: sf.Store) -> None:
    head = sf.train_head(store, "word", "lda", layers=[4, 2])
    assert isinstance(head, PooledHead)
    embeddings = others.embeddings()[1][:, [LAYERS.index(4), LAYERS.index(2)]]
    assert np.array_equal(head.answer(embeddings), head.probabilities(others))
    assert np.array_equal(head.answer(embeddings.astype(np.float64)), head.probabilities(others))
    assert head.answer(embeddings[:0]).shape == (0, 3)
    with pytest.raises(sf.ParameterError, match=rf"shape \(72, 12\) .* L=2 and D'={DIM}"):
        head.answer(embeddings.reshape(72, -1))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_prototypes_are_scikit_learns_centroids(metric: str) -> None:
    values, codes = blobs()
    points = values if metric == "euclidean" else values / np.linalg.norm(values, axis=1, keepdims=True)
    expected = NearestCentroid().fit(points, codes)
    found = sf.Prototypes(metric).fit(values, codes)
    assert np.allclose(found.prototypes_, expected.centroids_)
    query = blobs(seed=1)[0]
    if metric == "euclidean":
        assert np.array_equal(found.predict(query), expected.predict(query))
    else:
        assert np.array_equal(found.predict(query), cdist(query, expected.centroids_, "cosine").argmin(axis=1))


def test_probabilities_of_prototypes_are_those_of_prototypical_networks() -> None:
    values, codes = blobs(gap=0.3)
    centroids = NearestCentroid().fit(values, codes).centroids_
    expected = softmax(-(cdist(values, centroids) ** 2), axis=1)
    assert np.allclose(sf.Prototypes("euclidean", temperature=1.0).fit(values, codes).predict_proba(values), expected)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_own_temperature_is_a_tenth_of_the_mean_distance(metric: str) -> None:
    found = sf.Prototypes(metric).fit(*blobs())
    distances = cdist(found.prototypes_, found.prototypes_, {"euclidean": "sqeuclidean"}.get(metric, metric))
    assert found.temperature_ == pytest.approx(distances[np.triu_indices(3, 1)].mean() / 10)


def test_one_example_a_class_is_enough_for_prototypes() -> None:
    found = sf.Prototypes("euclidean").fit(np.eye(3), ["x", "y", "z"])
    assert found.predict([[0.1, 0.2, 0.9], [2, 0, 0]]).tolist() == ["z", "x"]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_likeliest_class_is_the_answer_of_the_machine(classes: int) -> None:
    values, codes = blobs(classes=classes)
    expected = LinearSVC(C=0.01, random_state=0).fit(values, codes)
    found = SoftmaxSVC(C=0.01, temperature=0.3).fit(values, codes)
    query = blobs(seed=1, classes=classes)[0]
    shares = found.predict_proba(query)
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.array_equal(shares.argmax(axis=1), expected.predict(query))


@pytest.mark.parametrize("classes", [2, 3])
def test_discriminants_without_temperature_are_scikit_learns(classes: int) -> None:
    values, codes = blobs(classes=classes)
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2).fit(values, codes)
    found = Discriminant(shrinkage=0.2).fit(values, codes)
    assert np.allclose(found.predict_proba(values), expected.predict_proba(values))


def test_a_planted_temperature_is_found() -> None:
    rng = np.random.default_rng(0)
    margins = 20 * rng.standard_normal((4000, 4))
    right = np.array([rng.choice(4, p=row) for row in softmax(margins / 7, axis=1)])
    assert likeliest_temperature([(margins[:1000], right[:1000]), (margins[1000:], right[1000:])]) == pytest.approx(
        7, rel=0.1
    )
    assert likeliest_temperature([(np.ones((5, 2)), np.zeros(5, int))]) == 1


@pytest.mark.parametrize("kind", ["svm", "lda", "prototype"])
def test_the_temperature_makes_probabilities_honest(kind: str) -> None:
    # Nearly as many dimensions as examples: margins alone say little of how sure an answer is.
    values, codes = blobs(num=360, dim=60, gap=0.2)
    head = sf.pooled_head(kind).fit(values[:120], codes[:120])
    classifier, chosen = head.best_estimator_[-1], head.best_estimator_[-1].temperature_
    losses = {}
    for factor in (1, 3, 1 / 3):
        classifier.temperature_ = factor * chosen
        losses[factor] = log_loss(codes[120:], head.predict_proba(values[120:]))
    assert min(losses, key=losses.get) == 1, losses
    assert sf.pooled_head(kind, temperature=0.7).fit(values, codes).best_estimator_[-1].temperature_ == 0.7


def scikit_learns_search(found: TunedClassifier, scoring: str, **fitted: np.ndarray) -> GridSearchCV:
    folds = StratifiedGroupKFold(found.folds, shuffle=True, random_state=found.seed)
    grid = {name: list(options) for name, options in found.grid.items()}
    return GridSearchCV(clone(found.estimator), grid, scoring=scoring, cv=folds).fit(**fitted)


@pytest.mark.parametrize("kind", ["svm", "lda"])
def test_the_search_is_scikit_learns(kind: str) -> None:
    values, codes = blobs(gap=0.5)
    groups = np.arange(120) // 10
    found = sf.pooled_head(kind, folds=4, seed=3).fit(values, codes, groups)
    expected = scikit_learns_search(found, "balanced_accuracy", X=values, y=codes, groups=groups)
    assert [score for _, score in found.scores_] == pytest.approx(expected.cv_results_["mean_test_score"])
    assert found.best_params_ == expected.best_params_
    assert np.array_equal(found.predict(values), expected.predict(values))


def test_the_strongest_regularisation_within_one_standard_error_is_taken() -> None:
    differing = 0
    for seed in range(4):
        values, codes = blobs(gap=0.5, seed=seed)
        groups = np.arange(120) // 10
        found = sf.pooled_head("logistic", folds=4, seed=3).fit(values, codes, groups)
        expected = scikit_learns_search(found, "neg_log_loss", X=values, y=codes, groups=groups)
        results = expected.cv_results_
        assert [score for _, score in found.scores_] == pytest.approx(results["mean_test_score"])
        # scikit-learn's deviations are over n, the rule's over n - 1.
        best = expected.best_index_
        least = results["mean_test_score"][best] - results["std_test_score"][best] / np.sqrt(3)
        near = [
            C for C, score in zip(found.grid["classify__C"], results["mean_test_score"], strict=True) if score >= least
        ]
        assert found.best_params_ == {"classify__C": min(near)}
        differing += min(near) < expected.best_params_["classify__C"]
    assert differing


def test_what_is_alike_within_a_group_alone_is_not_counted() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 6)
    codes = groups % 2
    values = 10 * rng.standard_normal((20, 8))[groups] + 0.1 * rng.standard_normal((120, 8))
    by_row = sf.pooled_head("knn", n_neighbors=[1, 3]).fit(values, codes)
    by_group = sf.pooled_head("knn", n_neighbors=[1, 3]).fit(values, codes, groups)
    assert min(score for _, score in by_row.scores_) == 1
    assert max(score for _, score in by_group.scores_) < 0.8


def test_folds_keep_groups_whole_and_test_what_they_train() -> None:
    labels = np.array([*"aaaaaabbbbbbccc", "rare"])
    groups = np.array([*"1112221113334444"])
    folds = inner_folds(labels, groups, 3, seed=0)
    assert len(folds) >= 2
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert set(labels[test]) <= set(labels[train])
    # Classes of one group alone are never tested.
    assert not {"c", "rare"} & {label for _, test in folds for label in labels[test]}


@pytest.mark.parametrize(
    ("labels", "groups", "folds"),
    [("aabb", None, 2), ("aaabbb", None, 3), ("aaabbb", "112112", 2), ("ab", None, 0), ("aabb", "1111", 0)],
)
def test_there_are_as_many_folds_as_can_be(labels: str, groups: str | None, folds: int) -> None:
    assert len(inner_folds(list(labels), None if groups is None else list(groups), 3, seed=0)) == folds


def test_speakers_as_labels_and_groups_leave_nothing_to_choose_by() -> None:
    values, codes = blobs()
    head = sf.pooled_head("logistic").fit(values, codes, groups=codes)
    assert head.scores_ == [] and head.best_params_ == {"classify__C": 1e-2}


@pytest.mark.parametrize("kind", POOLED_KINDS)
def test_rare_classes_are_borne(kind: str) -> None:
    values, codes = blobs(num=30, gap=4)
    codes[0] = 3
    head = sf.pooled_head(kind, **QUICK.get(kind, {})).fit(values, codes)
    assert head.predict_proba(values).shape == (30, 4)
    # As few as can be: one example of each of two classes.
    tiny = sf.pooled_head(kind, **QUICK.get(kind, {}))
    if kind == "lda":  # which has nothing to take a covariance from
        with pytest.raises(ValueError, match="number of samples must be more"):
            tiny.fit(values[1:3], codes[1:3])
    else:
        assert tiny.fit(values[1:3], codes[1:3]).predict(values[1:3]).shape == (2,)


@pytest.mark.parametrize("kind", ["logistic", "svm", "lda"])
def test_balanced_weights_find_more_of_the_rare_class(kind: str) -> None:
    values, codes = blobs(num=400, classes=2, gap=0.6)
    kept = np.flatnonzero((codes == 0) | (np.arange(400) % 20 == 1))
    recalls = [
        recall_score(codes, sf.pooled_head(kind, class_weight=weight).fit(values[kept], codes[kept]).predict(values))
        for weight in (None, "balanced")
    ]
    assert recalls[1] > recalls[0] + 0.1


def test_options_are_fixed_or_searched() -> None:
    values, codes = blobs()
    fixed = sf.pooled_head("logistic", C=0.5, class_weight=None).fit(values, codes)
    assert fixed.best_estimator_[-1].C == 0.5 and fixed.scores_ == []
    searched = sf.pooled_head("knn", n_neighbors=[1, 7], metric="euclidean").fit(values, codes)
    assert [params["classify__n_neighbors"] for params, _ in searched.scores_] == [1, 7]
    # Of what is no more than the training data of a fold: 80 of 120.
    assert len(sf.pooled_head("knn", n_neighbors=[5, 80, 81], metric="cosine").fit(values, codes).scores_) == 2


def test_discriminants_of_many_layers_are_refused() -> None:
    with pytest.raises(sf.ParameterError, match=r"8193 dimensions .*at most 8192.* take one layer"):
        sf.pooled_head("lda").fit(np.zeros((4, 8193), np.float32), [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("logistics", {}, r"'logistics'; did you mean 'logistic'\? The kinds are logistic, svm"),
        ("svm", {"gamma": 1}, "'gamma' is no option of 'svm'; it takes C, class_weight, temperature"),
        ("knn", {"class_weight": "balanced"}, "'class_weight' is no option of 'knn'"),
        ("logistic", {"C": []}, r"C=\[\] holds no value"),
        ("logistic", {"folds": 1}, "folds=1 must be at least 2"),
    ],
)
def test_bad_options_are_refused(kind: str, options: dict, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        sf.pooled_head(kind, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "logistic", "C": -1.0}, "cannot train a 'logistic' head on 72 utterances.*'C'"),
        ({"kind": "knn", "n_neighbors": 73}, "n_neighbors=73 are more than the 48 examples"),
        ({"kind": "prototype", "metric": "manhattan"}, "metric='manhattan' is not known"),
        ({"kind": "svm", "temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"kind": "knn", "weights": lambda d: d}, "weights=.* cannot be saved with a head"),
        ({"kind": "xvektor"}, "did you mean 'xvector'"),
        ({"layers": 3}, "takes layer 3 .* and .* has 0, 2, 4"),
        ({"layers": "best"}, "layer 'best' is not known"),
    ],
)
def test_bad_training_is_refused(store: sf.Store, options: dict, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        sf.train_head(store, "word", **options)


def test_the_layer_that_tells_is_chosen_on_the_training_data(store: sf.Store) -> None:
    by_word = sf.train_head(store, "word", groups="speaker", layers="auto")
    by_speaker = sf.train_head(store, "speaker", layers="auto")
    assert by_word.record.binding.layers == (2,) and by_speaker.record.binding.layers == (4,)
    layers, scores = by_word.record.options["layer_scores"]
    ids, embeddings = store.embeddings()
    table = store.table()
    expected = sf.choose_layer(embeddings, table["word"], table["speaker"])
    assert expected.position == 1 and layers == [0, 2, 4]
    assert scores == [list(one) for one in expected.scores]
    assert scores[1][0] > 0.8 > 0.5 > max(scores[0][0], scores[2][0])
    some = sf.train_head(store, "word", groups="speaker", layers="auto", ids=ids[:36])
    assert some.record.options["layer_scores"] != by_word.record.options["layer_scores"]


def test_layers_are_named_as_for_encoders(store: sf.Store, tmp_path: Path) -> None:
    def taken(layers: object) -> tuple[int, ...]:
        return sf.train_head(store, "word", "prototype", layers=layers, metric="cosine").record.binding.layers

    assert taken(None) == taken("all") == LAYERS
    assert taken(2) == taken("2") == taken(-4) == (2,)
    assert taken("4,0") == taken([4, 0]) == (4, 0)
    single = write_embeddings(tmp_path / "s", [4])
    for layers in (None, "auto", 4, "penultimate"):
        assert sf.train_head(single, "speaker", "prototype", layers=layers).record.binding.layers == (4,)


def test_a_layer_is_not_chosen_by_nothing(store: sf.Store) -> None:
    with pytest.raises(sf.ParameterError, match="72 utterances of 6 classes in 6 groups give no two folds"):
        sf.train_head(store, "speaker", groups="speaker", layers="auto")


def test_training_again_gives_the_same(store: sf.Store, others: sf.Store) -> None:
    heads = [sf.train_head(store, "word", "mlp", layers=2, seed=seed, **QUICK["mlp"]) for seed in (1, 1, 2)]
    first, again, other = (head.probabilities(others) for head in heads)
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_the_record_says_what_was_chosen(store: sf.Store) -> None:
    record = sf.train_head(store, "word", "logistic", groups="speaker", layers=2, class_weight="balanced").record
    options = record.options
    assert (record.kind, record.task) == ("logistic", "word")
    assert options["class_weight"] == "balanced" and options["chosen"]["C"] in [one["C"] for one in options["search"]]
    assert len(options["search"]) == 5 and max(one["log_likelihood"] for one in options["search"]) > np.log(0.7)
    assert record.training["utterances"] == 72


def test_labels_may_be_given_in_any_order(store: sf.Store, others: sf.Store) -> None:
    words = dict(zip(store.ids, store.table()["word"], strict=True))
    ids = list(np.random.default_rng(0).permutation(store.ids))
    given = sf.train_head(
        store, [words[key] for key in ids], "prototype", ids=ids, layers=2, task="word", metric="cosine"
    )
    column = sf.train_head(store, "word", "prototype", layers=2, metric="cosine")
    assert given.record.task == "word" and given.record.training["hash"] == column.record.training["hash"]
    assert np.array_equal(given.probabilities(others).argmax(axis=1), column.probabilities(others).argmax(axis=1))
    numbers = sf.train_head(store, [len(words[key]) for key in store.ids], "prototype", layers=2)
    assert numbers.classes == ["2", "6"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": "emotion"}, "no column 'emotion' of labels; it has .*word"),
        ({"labels": ["a", "b"]}, "72 utterances and 2 labels"),
        ({"labels": ["a"] * 72}, "all of 72 labels are a"),
        ({"labels": "odd"}, "1 of 72 utterances have no label, first '0-000'"),
        ({"labels": [None, *"ab" * 35, "a"]}, "1 of 72 utterances have no label"),
        ({"labels": "word", "groups": "odd"}, "1 of 72 utterances have no group, first '0-000'"),
        ({"labels": "word", "ids": []}, "no utterance to train on"),
        ({"labels": "word", "ids": ["0-001", "0-002", "0-001"]}, "1 of 3 ids repeat"),
    ],
)
def test_labels_are_checked(store: sf.Store, arguments: dict, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        sf.train_head(store, **arguments)


def test_failed_recordings_are_named(tmp_path: Path) -> None:
    store = write_embeddings(tmp_path / "s", failed=["bad", "worse"])
    with pytest.raises(sf.ParameterError, match=r"2 of 4 utterances have no features.* first 'bad': it is empty"):
        sf.train_head(store, list("abab"), ids=[*store.ids[:2], "bad", "worse"])
    with pytest.raises(sf.StoreError, match="no utterance '0-0001'"):
        sf.train_head(store, "word", ids=[*store.ids, "0-0001"])
