"""Heads that are taught: by another head's probabilities, or by themselves on utterances without labels.

teacher = held_out_answers(strong_store, "keyword", groups="speaker")
head = distill_head(small_store, "keyword", teacher, temperature=4, layers=3)
head = self_train_head(store, labels, groups="speaker", unlabelled=[other_store])
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from speechfeat.classification import average_recall
from speechfeat.errors import ParameterError
from speechfeat.heads.base import HeadRecord, describe_training
from speechfeat.heads.binding import Binding
from speechfeat.heads.choosing import plan_layers
from speechfeat.heads.estimators import CLASSIFIER, inner_folds
from speechfeat.heads.examples import UNKNOWN, Column, Examples, read_examples
from speechfeat.heads.pooled import PooledHead, train_pooled_head
from speechfeat.heads.semi import SelfTraining, self_train
from speechfeat.heads.soft import fit_soft_logistic, log_shares
from speechfeat.heads.states import describe_pipeline
from speechfeat.layers import Layers
from speechfeat.store import Store

# Of the regularisation, that are tried.
STRENGTHS = (1e-2, 1e-1, 1e-3)
FOLDS = 3


def held_out_answers(
    store: Store,
    labels: Column,
    kind: str = "logistic",
    *,
    ids: Sequence[str] | None = None,
    groups: Column | None = None,
    layers: Layers | None = None,
    folds: int = 5,
    seed: int = 0,
    **options: Any,
) -> np.ndarray:
    """What heads say of utterances that they were not trained on: a teacher's answers for its own training data.

    What a head says of what it was trained on is little else than the labels that it was given.

    Args:
        store: of the teacher's features.
        labels: as for `train_head`.
        kind: one of `POOLED_KINDS`.
        ids: as for `train_head`.
        groups: as for `train_head`; folds keep them whole.
        layers: as for `train_head`.
        folds: at most; each is answered for by a head trained on the others.
        seed: of the folds and the training.
        options: of `pooled_head`.

    Returns:
        Probabilities of the classes in their order, `[n, C]`, a row an id; of several teachers, their average is one.

    Raises:
        ParameterError: as of `train_head`, or if no two folds can be made that train every class.
    """
    examples = read_examples(store, labels, ids, groups)
    splits = inner_folds(examples.codes, examples.groups, folds, seed)
    answers = np.full((len(examples.ids), len(examples.classes)), np.nan)
    for train, test in splits:
        head = train_pooled_head(
            store,
            [examples.labels[row] for row in train],
            kind,
            ids=[examples.ids[row] for row in train],
            groups=None if examples.groups is None else [examples.groups[row] for row in train],
            layers=layers,
            seed=seed,
            **options,
        )
        if tuple(head.classes) == examples.classes:
            answers[test] = head.probabilities(store, [examples.ids[row] for row in test])
    if missing := int(np.isnan(answers).any(axis=1).sum()):
        raise ParameterError(
            f"{missing} of {len(answers)} utterances are in no fold whose others have all {len(examples.classes)} "
            "classes; give more utterances of rare classes, or groups=None"
        )
    return answers


def distill_head(
    store: Store,
    labels: Column,
    teacher: np.ndarray,
    *,
    ids: Sequence[str] | None = None,
    groups: Column | None = None,
    layers: Layers | None = None,
    temperature: float = 2.0,
    alpha: float = 0.5,
    beta: float = 0.5,
    C: float | Sequence[float] = STRENGTHS,  # noqa: N803 - scikit-learn's name
    task: str | None = None,
    seed: int = 0,
) -> PooledHead:
    """Train a logistic head by labels and a teacher: `alpha * T^2 * KL + beta * cross-entropy` (Hinton et al., 2015).

    Args:
        store: of the student's features; the teacher may have heard others of the same utterances.
        labels: as for `train_head`, "" where the teacher alone is to be followed.
        teacher: probabilities `[n, C]` of the classes in the order of their names, a row an id; rows of NaN where the
            teacher has said nothing.
        ids: as for `train_head`.
        groups: as for `train_head`; folds in which something is chosen keep them whole.
        layers: as for `train_head`.
        temperature: T.
        alpha: weight of the teacher.
        beta: weight of the labels.
        C: inverse strength of the regularisation, as in scikit-learn; of several that which tells most, by recall
            averaged over classes, in folds of the labelled utterances.
        task: as for `train_head`.
        seed: of what is chosen.

    Raises:
        ParameterError: as of `train_head`, if the teacher's answers do not fit, or a number is out of range.
        StoreError: if an id is not in the store.
    """
    examples = read_examples(store, labels, ids, groups, task, partly=True)
    if np.shape(teacher) != (len(examples.ids), len(examples.classes)):
        raise ParameterError(
            f"the teacher's answers have the shape {np.shape(teacher)}; there are {len(examples.ids)} utterances of "
            f"{len(examples.classes)} classes ({', '.join(examples.classes)})"
        )
    plan = plan_layers(store, _labelled(examples), layers, seed=seed)
    binding = Binding.of(store, plan.layers)
    values, answers = binding.embeddings(store, examples.ids).reshape(len(examples.ids), -1), np.asarray(teacher)
    settings = {"temperature": temperature, "alpha": alpha, "beta": beta}

    def fit(rows: np.ndarray, strength: float) -> Pipeline:
        scale = StandardScaler().fit(values[rows])
        inputs, said = scale.transform(values[rows]), log_shares(answers[rows])
        classifier = fit_soft_logistic(inputs, examples.codes[rows], said, C=strength, **settings)
        return Pipeline([("scale", scale), (CLASSIFIER, classifier)])

    strengths = tuple(C) if isinstance(C, Sequence) else (C,)
    chosen = _choose(fit, strengths, values, examples, seed)
    pipeline = fit(np.arange(len(values)), chosen)
    options = {**settings, **plan.options, "chosen": {"C": chosen}}
    return _head(pipeline, "logistic", store, examples, binding=binding, options=options)


def self_train_head(
    store: Store,
    labels: Column,
    plan: SelfTraining | None = None,
    *,
    ids: Sequence[str] | None = None,
    groups: Column | None = None,
    layers: Layers | None = None,
    unlabelled: Sequence[Store] = (),
    task: str | None = None,
) -> PooledHead:
    """Train a head on a few labelled and many unlabelled utterances; see `self_train`.

    Args:
        store: with both.
        labels: as for `train_head`, "" where it is not known.
        plan: how; None for the defaults.
        ids: as for `train_head`.
        groups: as for `train_head`.
        layers: that teach each other, each a view of its own, as for `train_head`; the head takes them side by side.
        unlabelled: stores of further utterances by the same encoder, such as of other directories; their labels are not
            looked at.
        task: as for `train_head`.

    Raises:
        ParameterError: as of `train_head`, or if a class has no labelled utterance.
        StoreError: if an id is not in the store.
    """
    plan = plan or SelfTraining()
    examples = read_examples(store, labels, ids, groups, task, partly=True)
    binding = Binding.of(store, plan_layers(store, _labelled(examples), layers, seed=plan.seed).layers)
    values, codes, units = binding.embeddings(store, examples.ids), examples.codes, examples.groups
    for number, further in enumerate(unlabelled):
        others = binding.embeddings(further)
        values, codes = np.concatenate([values, others]), np.append(codes, np.full(len(others), UNKNOWN))
        # Of whom they are is not known: each stands for itself.
        units = None if units is None else [*units, *(f"{number}#{row}" for row in range(len(others)))]
    found = self_train(values, codes, len(examples.classes), plan, groups=units)
    rounds = [{"taken": one.taken, "uar": one.score} for one in found.rounds]
    options = {"shrinkage": plan.shrinkage, "rounds": rounds, "round": found.best}
    return _head(found.joined(), "lda", store, examples, binding=binding, options=options)


def _choose(
    fit: Callable[[np.ndarray, float], Pipeline],
    strengths: Sequence[float],
    values: np.ndarray,
    examples: Examples,
    seed: int,
) -> float:
    """The strength that tells most of labelled utterances held out in folds; of equals the earlier."""
    known = np.flatnonzero(examples.codes != UNKNOWN)
    units = None if examples.groups is None else np.array(examples.groups)[known]
    splits = inner_folds(examples.codes[known], units, FOLDS, seed) if len(strengths) > 1 else []
    if not splits:
        return strengths[0]
    scores = []
    for strength in strengths:
        told = []
        for _, test in splits:
            rows = np.setdiff1d(np.arange(len(values)), known[test])
            answers = fit(rows, strength).predict(values[known[test]])
            told.append(average_recall(examples.codes[known[test]], answers))
        scores.append(np.mean(told))
    return strengths[int(np.argmax(scores))]


def _labelled(examples: Examples) -> Examples:
    """Those whose label is known."""
    rows = [row for row, label in enumerate(examples.labels) if label]
    return examples._replace(
        ids=[examples.ids[row] for row in rows],
        labels=[examples.labels[row] for row in rows],
        groups=None if examples.groups is None else [examples.groups[row] for row in rows],
    )


def _head(
    pipeline: Pipeline, kind: str, store: Store, examples: Examples, *, binding: Binding, options: dict[str, Any]
) -> PooledHead:
    """With its record."""
    training = describe_training(store, examples.ids, examples.labels)
    described = {**options, "pipeline": describe_pipeline(pipeline)[0]}
    return PooledHead(HeadRecord(kind, examples.task, examples.classes, binding, described, training), pipeline)
