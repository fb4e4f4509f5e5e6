"""Laws of domain adaptation: moments become the target's, gradients turn round, heads find what was moved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power

import speechfeat as sf
from tests.embedded import write_embeddings


def domain(seed: int, num: int = 400, dim: int = 5) -> np.ndarray:
    """Rows whose dimensions hang together, of unlike scales and means."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num, dim)) @ rng.standard_normal((dim, dim)) + 10 * rng.standard_normal(dim)


def test_the_source_gets_mean_and_variance_of_the_target() -> None:
    source, target = domain(0), domain(1)
    moved = sf.MeanVariance().fit(source, target=target).transform(source)
    assert np.allclose(moved.mean(axis=0), target.mean(axis=0))
    assert np.allclose(moved.std(axis=0), target.std(axis=0))
    # Dimension by dimension: correlations stay.
    assert np.allclose(np.corrcoef(moved.T), np.corrcoef(source.T))


def test_coral_makes_the_covariance_that_of_the_target() -> None:
    source, target = domain(0), domain(1)
    moved = sf.Coral(1e-9).fit(source, target=target).transform(source)
    assert np.allclose(moved.mean(axis=0), target.mean(axis=0))
    assert np.allclose(np.cov(moved.T, ddof=0), np.cov(target.T, ddof=0), atol=1e-5)
    assert not np.allclose(np.cov(source.T), np.cov(target.T), rtol=0.5)


def test_coral_is_the_formula_of_the_paper() -> None:
    source, target = ((rows - rows.mean(axis=0)) / rows.std(axis=0) for rows in (domain(0), domain(1)))
    whiten, colour = (
        fractional_matrix_power(np.cov(rows.T, ddof=0) + np.eye(5), power)
        for rows, power in ((source, -0.5), (target, 0.5))
    )
    moved = sf.Coral().fit(source, target=target).transform(source)
    assert np.allclose(moved, source @ whiten @ colour)


@pytest.mark.parametrize("alignment", [sf.MeanVariance(), sf.Coral()])
def test_a_source_that_is_the_target_stays(alignment: sf.MeanVariance) -> None:
    rows = np.hstack([domain(0), np.full((400, 1), 7.0)])  # with a dimension that does not vary
    moved = alignment.fit(rows.astype(np.float32), target=rows).transform(rows.astype(np.float32))
    assert moved.dtype == np.float32
    assert np.allclose(moved, rows, atol=1e-4)


def test_domains_that_do_not_fit_are_refused() -> None:
    with pytest.raises(sf.ParameterError, match=r"a source \(400, 5\) and a target \(400, 4\) must have as many"):
        sf.Coral().fit(domain(0), target=domain(1)[:, :4])
    with pytest.raises(sf.ParameterError, match="two rows or more"):
        sf.MeanVariance().fit(domain(0), target=domain(1)[:1])
    with pytest.raises(sf.ParameterError, match="regularisation=0 must be above 0"):
        sf.Coral(0).fit(domain(0), target=domain(1))


def test_a_reversed_gradient_is_minus_strength_times_the_gradient() -> None:
    values = torch.randn(4, 3, requires_grad=True)
    weights = torch.randn(4, 3)
    turned = sf.reverse_gradient(values, 0.7)
    assert torch.equal(turned, values)
    (gradient,) = torch.autograd.grad((values**2 * weights).sum(), values)
    (reversed_,) = torch.autograd.grad((turned**2 * weights).sum(), values)
    assert torch.allclose(reversed_, -0.7 * gradient)


def two_domains(classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Source and target with their classes, which one dimension tells in both and one in the source alone."""
    rng = np.random.default_rng(0)
    codes = [np.arange(240) % classes for _ in range(2)]
    rows = [rng.standard_normal((240, 6)) for _ in range(2)]
    for side, values in enumerate(rows):
        values[:, 0] += 3 * codes[side]
        values[:, 1] += 6 * codes[0] if side == 0 else 6 * classes
    return rows[0], codes[0], rows[1], codes[1]


def fit_adversarial(strength: float, classes: int = 3, **options: int) -> sf.AdversarialClassifier:
    source, labels, target, _ = two_domains(classes)
    rows = np.concatenate([source, target])
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    labels = np.concatenate([labels, np.full(len(target), sf.UNLABELLED)])
    return sf.AdversarialClassifier(strength=strength, **options).fit(rows, labels)


def test_the_adversary_makes_domains_alike_and_the_target_told() -> None:
    source, _, target, truth = two_domains()
    rows = np.concatenate([source, target])
    standard = (target - rows.mean(axis=0)) / rows.std(axis=0)
    unopposed, opposed = fit_adversarial(0.0), fit_adversarial(1.0)
    assert unopposed.domain_accuracy_ > 0.95
    assert opposed.domain_accuracy_ < unopposed.domain_accuracy_ - 0.1
    right = [np.mean(one.predict(standard) == truth) for one in (unopposed, opposed)]
    assert right[1] > right[0] + 0.1


@pytest.mark.parametrize("classes", [2, 3])
def test_equal_seeds_give_equal_networks_and_shares_sum_to_1(classes: int) -> None:
    rows = np.random.default_rng(1).standard_normal((20, 6)).astype(np.float32)
    one, again, other = (fit_adversarial(1.0, classes, steps=50, seed=seed) for seed in (1, 1, 2))
    shares = one.predict_proba(rows)
    assert shares.shape == (20, classes)
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.array_equal(shares, again.predict_proba(rows))
    assert not np.allclose(shares, other.predict_proba(rows))


@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_learnt_tells_the_classes_of_the_source(classes: int) -> None:
    source, labels, target, _ = two_domains(classes)
    rows = np.concatenate([source, target])
    standard = (source - rows.mean(axis=0)) / rows.std(axis=0)
    assert np.mean(fit_adversarial(0.0, classes).predict(standard) == labels) > 0.95


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({}, [0, 1, 0, 1], "2 classes and 0 rows of the target"),
        ({}, [0, 0, -1, -1], "1 classes and 2 rows of the target"),
        ({"strength": -1}, [0, 1, -1, -1], "strength=-1 must be at least 0"),
        ({"steps": 0}, [0, 1, -1, -1], "steps=0 must be at least 1"),
        ({"learning_rate": 1e9, "steps": 20}, [0, 1, -1, -1], "the loss became nan; use a learning_rate below"),
        ({"learning_rate": 0}, [0, 1, -1, -1], "learning_rate=0 must be above 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: dict[str, float], labels: list[int], message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        sf.AdversarialClassifier(**options).fit(np.eye(4), labels)


class Shifted:
    """A store of other utterances, whose embeddings went through another channel."""

    def __init__(self, store: sf.Store) -> None:
        self.store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def embeddings(self, ids: list[str] | None = None) -> tuple[list[str], np.ndarray]:
        keys, values = self.store.embeddings(ids)
        everything = self.store.embeddings()[1]
        scale = everything.std(axis=0)
        return keys, (1.5 * values + 3 * scale * np.array([1, -1] * 3)).astype(np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> sf.Store:
    return write_embeddings(tmp_path_factory.mktemp("source") / "s")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Shifted:
    return Shifted(write_embeddings(tmp_path_factory.mktemp("target") / "s", seed=5))


def right(head: sf.Head, store: sf.Store | Shifted) -> float:
    words = store.table().set_index("id").loc[store.ids, "word"].to_numpy()
    return float(np.mean(np.array(head.classes)[head.probabilities(store).argmax(axis=1)] == words))


@pytest.mark.parametrize("method", sf.ADAPTATIONS)
def test_an_adapted_head_tells_words_of_the_target_and_is_saved(
    source: sf.Store, target: Shifted, method: str, tmp_path: Path
) -> None:
    plain = sf.train_head(source, "word", layers=2, groups="speaker")
    head = sf.train_adapted_head(source, "word", target, method, layers=2, groups="speaker")
    assert right(head, target) > right(plain, target) + 0.05
    assert head.record.options["adaptation"] == method
    head.save(tmp_path / "head")
    again = sf.load_head(tmp_path / "head")
    assert np.array_equal(again.probabilities(target), head.probabilities(target))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("coral2", {}, "method='coral2' is not known; use mean-variance, coral, adversarial"),
        ("adversarial", {"kind": "svm"}, "kind='svm' is for mean-variance and coral"),
        ("adversarial", {"depth": 3}, "'depth' is no option of 'adversarial'; it takes batch_size"),
        ("mean-variance", {"regularisation": 1.0}, "'regularisation' is no option of 'logistic'"),
        ("coral", {"kind": "nearest"}, "unknown kind of head 'nearest'"),
    ],
)
def test_a_bad_call_is_refused(
    source: sf.Store, target: Shifted, method: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        sf.train_adapted_head(source, "word", target, method, layers=2, **options)


def test_coral_takes_its_own_option(source: sf.Store, target: Shifted) -> None:
    strong, weak = (
        sf.train_adapted_head(source, "word", target, layers=2, regularisation=value) for value in (100.0, 1e-3)
    )
    assert not np.allclose(strong.probabilities(target), weak.probabilities(target))
    assert strong.record.options["regularisation"] == 100.0


def test_a_target_of_another_encoder_is_refused(source: sf.Store, tmp_path: Path) -> None:
    with pytest.raises(sf.ParameterError, match="this head takes features of 'tiny'"):
        sf.train_adapted_head(source, "word", write_embeddings(tmp_path / "s", weights="cd"), layers=2)
