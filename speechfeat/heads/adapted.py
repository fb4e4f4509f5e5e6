"""Heads for a domain without labels, trained on a labelled one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from speechfeat.adaptation import ALIGNMENTS, MeanVariance
from speechfeat.errors import ParameterError
from speechfeat.heads.adversarial import UNLABELLED, AdversarialClassifier
from speechfeat.heads.estimators import CLASSIFIER, pooled_head
from speechfeat.heads.examples import Column
from speechfeat.heads.pooled import (
    PooledHead,
    PooledMaterial,
    bind_pipeline,
    fit_pooled_head,
    gather_embeddings,
    side_by_side,
)
from speechfeat.heads.states import plain
from speechfeat.layers import Layers
from speechfeat.store import Store

ADVERSARIAL = "adversarial"
ADAPTATIONS = (*ALIGNMENTS, ADVERSARIAL)
# What is left of an adversarial network after its training, and saved.
PERCEPTRON = "mlp"


def train_adapted_head(
    store: Store,
    labels: Column,
    target: Store,
    method: str = "coral",
    kind: str | None = None,
    *,
    ids: Sequence[str] | None = None,
    target_ids: Sequence[str] | None = None,
    groups: Column | None = None,
    layers: Layers | None = None,
    task: str | None = None,
    folds: int = 3,
    seed: int = 0,
    **options: Any,
) -> PooledHead:
    """Train a head on labelled utterances of a source, for utterances of a target of which no labels are known.

    * "mean-variance": every dimension of the source gets the mean and variance of the target (`MeanVariance`).
    * "coral": the source gets the mean and covariance of the target (`Coral`).
    * "adversarial": a network whose hidden layer does not tell the domains apart (`AdversarialClassifier`).

    The head takes features of the target as they are; it is an ordinary one, to be saved and loaded like all.

    Args:
        store: of the source.
        labels: as for `train_head`.
        target: features of the same encoder, of the target.
        method: one of these.
        kind: for the first two, of the head, one of `POOLED_KINDS`; None for "logistic".
        ids: of the utterances of the source; None for all.
        target_ids: of the utterances of the target; None for all. Those that are tested should not be among them, or it
            should be said that they are.
        groups: as for `train_head`.
        layers: as for `train_head`; "auto" is chosen on the source.
        task: as for `train_head`.
        folds: that the regularisation is chosen in, at most, on the source.
        seed: of the folds and the training.
        options: for the first two, of `pooled_head`, and `regularisation` of `Coral`; for the last, of
            `AdversarialClassifier`.

    Raises:
        ParameterError: as of `train_head`; if the method is not known, or the target is of another encoder.
        StoreError: if an id is not in its store.

    Example:
        head = train_adapted_head(studio, "emotion", telephone, "coral", groups="speaker", layers="auto")
    """
    if method not in ADAPTATIONS:
        raise ParameterError(f"method={method!r} is not known; use {', '.join(ADAPTATIONS)}")
    told = {"adaptation": method, "seed": seed, **{name: plain(name, value) for name, value in options.items()}}
    if method == ADVERSARIAL:
        if kind is not None:
            raise ParameterError(f"kind={kind!r} is for {' and '.join(ALIGNMENTS)}; {ADVERSARIAL!r} is a kind itself")
        network = _network(seed, options)
        material = gather_embeddings(store, labels, ids=ids, groups=groups, layers=layers, task=task, seed=seed)
        return _adversarial(network, material, _target(material, target, target_ids), told)
    alignment = _alignment(method, options)
    estimator = pooled_head(kind or "logistic", folds=folds, seed=seed, **options)
    material = gather_embeddings(store, labels, ids=ids, groups=groups, layers=layers, task=task, seed=seed)
    there = _target(material, target, target_ids)
    moved = material._replace(values=alignment.fit(material.values, target=there).transform(material.values))
    return fit_pooled_head(estimator, kind or "logistic", moved, told | {"folds": folds, "target": len(there)})


def _target(material: PooledMaterial, target: Store, ids: Sequence[str] | None) -> np.ndarray:
    """`[m, L * D']`."""
    return side_by_side(material.binding.embeddings(target, ids))


def _alignment(method: str, options: dict[str, Any]) -> MeanVariance:
    """Takes its own options out of all."""
    made = ALIGNMENTS[method]()
    return made.set_params(**{name: options.pop(name) for name in made.get_params() if name in options})


def _network(seed: int, options: dict[str, Any]) -> AdversarialClassifier:
    network = AdversarialClassifier(seed=seed)
    known = sorted(set(network.get_params()) - {"seed"})
    if unknown := [name for name in options if name not in known]:
        raise ParameterError(f"{unknown[0]!r} is no option of {ADVERSARIAL!r}; it takes {', '.join(known)}")
    return network.set_params(**options)


def _adversarial(
    network: AdversarialClassifier, material: PooledMaterial, target: np.ndarray, told: dict[str, Any]
) -> PooledHead:
    codes = np.concatenate([material.examples.codes, np.full(len(target), UNLABELLED)])
    fitted = Pipeline([("scale", StandardScaler()), (CLASSIFIER, network)])
    fitted.fit(np.concatenate([material.values, target]), codes)
    pipeline = Pipeline([("scale", fitted[0]), (CLASSIFIER, network.network_)])
    found = {"target": len(target), "domain_accuracy": network.domain_accuracy_}
    return bind_pipeline(pipeline, PERCEPTRON, material, {**told, **material.plan.options, **found})
