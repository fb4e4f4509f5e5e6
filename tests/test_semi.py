import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

import speechfeat as sf
from speechfeat.heads.classifiers import Discriminant
from speechfeat.heads.semi import SelfTraining, _last_good, self_train
from speechfeat.heads.soft import distillation_loss, fit_soft_discriminant, fit_soft_logistic, log_shares
from tests.embedded import SPEAKERS, WORDS, write_embeddings

CLASSES = 3


def examples(
    count: int = 120, dims: int = 8, views: int = 2, seed: int = 0, noise: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that overlap, seen in views of independent noise: `[n, V, D]` and codes."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % CLASSES
    means = np.random.default_rng(9).standard_normal((CLASSES, views, dims))
    return (means[codes] + noise * rng.standard_normal((count, views, dims))).astype(np.float32), codes


def hide(codes: np.ndarray, kept: int) -> np.ndarray:
    return np.where(np.arange(len(codes)) < kept, codes, -1)


def test_distillation_loss_is_zero_where_the_student_says_what_the_teacher_says() -> None:
    logits = torch.randn(4, CLASSES, dtype=torch.float64)
    # Logits and logarithms of probabilities are the same teacher.
    assert distillation_loss(logits, logits.log_softmax(dim=1), 3.0).abs().max() < 1e-12
    assert (distillation_loss(logits, logits.flip(1), 3.0) > 0).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_gradient_of_the_distillation_loss(temperature: float) -> None:
    """T * (softmax(student / T) - softmax(teacher / T)), as the paper derives."""
    student, teacher = torch.randn(2, 5, CLASSES, dtype=torch.float64)
    student.requires_grad_()
    distillation_loss(student, teacher, temperature).sum().backward()
    difference = (student / temperature).softmax(dim=1) - (teacher / temperature).softmax(dim=1)
    torch.testing.assert_close(student.grad, temperature * difference.detach())


def test_without_weight_of_the_teacher_the_head_is_that_of_hard_labels() -> None:
    values, codes = examples(views=1)
    teacher = np.random.default_rng(0).standard_normal((len(codes), CLASSES))
    soft = fit_soft_logistic(values[:, 0], codes, teacher, temperature=4, alpha=0.0, beta=1.0, C=0.1)
    hard = LogisticRegression(C=0.1, tol=1e-6).fit(values[:, 0], codes)
    np.testing.assert_allclose(soft.predict_proba(values[:, 0]), hard.predict_proba(values[:, 0]), atol=1e-3)


def test_teacher_alone_teaches_what_it_says_and_labels_are_not_needed() -> None:
    values, codes = examples(views=1)
    teacher = LogisticRegression(C=0.1).fit(values[:, 0], codes)
    said = teacher.decision_function(values[:, 0])
    nothing = np.full(len(codes), -1)
    student = fit_soft_logistic(values[:, 0], nothing, said, temperature=3, alpha=1.0, beta=0.0, C=1e6)
    assert np.abs(student.predict_proba(values[:, 0]) - teacher.predict_proba(values[:, 0])).max() < 1e-3


def test_rows_that_nobody_tells_anything_of_change_nothing() -> None:
    values, codes = examples(views=1)
    said = np.where(np.arange(len(codes))[:, None] < 60, np.eye(CLASSES)[codes], np.nan)
    options = {"temperature": 2.0, "alpha": 0.5, "beta": 0.5, "C": 0.1}
    everything = fit_soft_logistic(values[:, 0], hide(codes, 60), log_shares(said), **options)
    part = fit_soft_logistic(values[:60, 0], codes[:60], log_shares(said[:60]), **options)
    np.testing.assert_allclose(everything.coef_, part.coef_, atol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_discriminant_of_sure_shares_is_that_of_labels(num_classes: int) -> None:
    values, codes = examples(views=1)
    inputs, labels = values[:, 0].astype(np.float64), codes % num_classes
    soft = fit_soft_discriminant(inputs, np.eye(num_classes)[labels], shrinkage=0.3)
    hard = Discriminant(0.3, "balanced").fit(inputs, labels)
    np.testing.assert_allclose(soft.predict_proba(inputs), hard.predict_proba(inputs), atol=1e-8)


def test_unlabelled_utterances_help() -> None:
    values, codes = examples(300, dims=30, noise=3.0)
    others, truth = examples(300, dims=30, noise=3.0, seed=1)
    found = self_train(values, hide(codes, 15), CLASSES, SelfTraining(folds=0))
    right = [np.mean(found.probabilities(others, number).argmax(axis=1) == truth) for number in range(4)]
    assert right[3] > right[0] + 0.02
    assert found.best == 3
    assert [one.taken for one in found.rounds] == [0, 285, 285, 285]


def test_threshold_above_one_takes_none_and_is_the_supervised_head() -> None:
    values, codes = examples()
    found = self_train(values, hide(codes, 15), CLASSES, SelfTraining(threshold=1.01, folds=0))
    assert [one.taken for one in found.rounds] == [0, 0, 0, 0]
    np.testing.assert_array_equal(found.probabilities(values, 3), found.probabilities(values, 0))
    some = self_train(values, hide(codes, 15), CLASSES, SelfTraining(threshold=0.8, folds=0))
    assert 0 < some.rounds[1].taken < 105


def test_students_as_one_head_average_their_log_likelihoods() -> None:
    values, codes = examples()
    found = self_train(values, hide(codes, 15), CLASSES, SelfTraining(rounds=1))
    margins = np.mean([one.decision_function(values[:, view]) for view, one in enumerate(found.students[1])], axis=0)
    shares = found.joined(1).predict_proba(values.reshape(len(values), -1))
    np.testing.assert_allclose(shares, softmax(margins, axis=1), atol=1e-6)


def test_students_of_copies_learn_what_the_teacher_says_of_the_clean() -> None:
    values, codes = examples()
    plan = SelfTraining(rounds=1, folds=0)
    alone = self_train(values, hide(codes, 15), CLASSES, plan)
    same = self_train(values, hide(codes, 15), CLASSES, plan, copies=values[None])
    np.testing.assert_allclose(same.probabilities(values), alone.probabilities(values), atol=1e-4)
    dirty = values + np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
    heard = self_train(values, hide(codes, 15), CLASSES, plan, copies=dirty[None])
    assert np.abs(heard.probabilities(values) - alone.probabilities(values)).max() > 0.01


def test_a_teacher_gone_astray_is_not_followed() -> None:
    truth = np.arange(40) % 2
    good, bad = truth.copy(), 1 - truth
    slightly = np.where(np.arange(40) == 3, 1 - truth, truth)
    answers = np.stack([slightly, good, slightly, bad])
    scores = [float(np.mean(one == truth)) for one in answers]
    assert _last_good(truth, answers, scores) == 2  # not surely worse than round 1; round 3 surely is


def test_rounds_end_where_held_out_labels_say_so() -> None:
    """Unlabelled utterances of nothing that the classes are: the more they count, the worse."""
    values, codes = examples(90)
    strange = -4 * values[:, ::-1] + 3 * np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
    everything, labels = np.concatenate([values, *[strange] * 6]), np.r_[codes, np.full(6 * len(codes), -1)]
    found = self_train(everything, labels, CLASSES, SelfTraining(soft=False))
    assert found.rounds[0].score > found.rounds[-1].score + 0.1
    assert found.best == 0


def test_folds_keep_what_they_hold_out_from_being_learnt() -> None:
    """Utterances that recur among the unlabelled tell nothing, where their group is held out as a whole."""
    values, codes = examples(60)
    doubled, labels = np.concatenate([values, values]), np.r_[codes, np.full(60, -1)]
    groups = np.tile(np.arange(60) // 10, 2).astype(str)
    apart = self_train(doubled, labels, CLASSES, SelfTraining(), groups=groups)
    alone = self_train(values, codes, CLASSES, SelfTraining(rounds=0), groups=groups[:60])
    assert apart.rounds[0].score == alone.rounds[0].score


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": -1}, "rounds=-1"),
        ({"folds": 1}, "folds=1"),
        ({"shrinkage": 0.0}, "shrinkage=0.0"),
    ],
)
def test_a_bad_plan_is_refused(options: dict, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        SelfTraining(**options)


def test_bad_material_is_refused() -> None:
    values, codes = examples(30)
    with pytest.raises(sf.ParameterError, match="of the classes \\[0, 1\\]"):
        self_train(values, np.where(codes == 2, -1, codes), CLASSES)
    with pytest.raises(sf.ParameterError, match="do not agree"):
        self_train(values[:, 0], codes, CLASSES)
    with pytest.raises(sf.ParameterError, match="copies"):
        self_train(values, codes, CLASSES, copies=values)
    with pytest.raises(sf.ParameterError, match="temperature=0"):
        fit_soft_logistic(values[:, 0], codes, np.zeros((30, 3)), temperature=0)
    with pytest.raises(sf.ParameterError, match="class 2 has no example"):
        fit_soft_discriminant(values[:, 0], np.eye(3)[np.minimum(codes, 1)])


def test_a_distilled_head_follows_its_teacher_and_is_saved_as_any_other(tmp_path) -> None:
    store = write_embeddings(tmp_path / "store")
    teacher = sf.held_out_answers(store, "word", layers=2, groups="speaker")
    assert teacher.shape == (72, 3)
    np.testing.assert_allclose(teacher.sum(axis=1), 1)
    head = sf.distill_head(
        store, [""] * 36 + [f"{w}" for w in store.table()["word"][36:]], teacher, layers=2, alpha=1, C=0.1
    )
    assert np.mean(head.predict(store)["label"] == store.table()["word"]) > 0.9
    head.save(tmp_path / "head")
    np.testing.assert_array_equal(sf.load_head(tmp_path / "head").probabilities(store), head.probabilities(store))
    with pytest.raises(sf.ParameterError, match="the teacher's answers have the shape"):
        sf.distill_head(store, "word", teacher[:, :2])


def test_teachers_answers_are_of_heads_that_did_not_train_on_them(tmp_path) -> None:
    """A speaker whose words are all called otherwise is answered for as the others speak."""
    store = write_embeddings(tmp_path / "store")
    table = store.table()
    turned = dict(zip(WORDS, (*WORDS[1:], WORDS[0]), strict=True))
    is_odd = (table["speaker"] == SPEAKERS[0]).to_numpy()
    labels = [turned[word] if odd else word for word, odd in zip(table["word"], is_odd, strict=True)]
    said = sf.held_out_answers(store, labels, groups="speaker", layers=2)
    answers = np.array(sorted(WORDS))[said.argmax(axis=1)]
    assert np.mean(answers[is_odd] == table["word"][is_odd]) > 0.8


def test_a_self_trained_head_takes_all_views_and_unlabelled_stores(tmp_path) -> None:
    store = write_embeddings(tmp_path / "store")
    other = write_embeddings(tmp_path / "other", seed=1)
    table = store.table()
    labels = [word if number < 24 else "" for number, word in enumerate(table["word"])]
    head = sf.self_train_head(store, labels, groups="speaker", unlabelled=[other], task="word")
    assert head.record.binding.layers == (0, 2, 4)
    assert head.record.options["rounds"][1]["taken"] == 48 + 72
    assert np.mean(head.predict(other)["label"] == other.table()["word"]) > 0.8
    head.save(tmp_path / "head")
    again = sf.load_head(tmp_path / "head").probabilities(other)
    np.testing.assert_allclose(again, head.probabilities(other), rtol=1e-12)
    with pytest.raises(sf.ParameterError, match="labels are"):
        sf.self_train_head(store, [""] * 72)
