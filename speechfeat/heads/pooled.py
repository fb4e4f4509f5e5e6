"""Heads on embeddings: scikit-learn classifiers, bound to the features they were trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.pipeline import Pipeline

from speechfeat.errors import ModelError, ParameterError
from speechfeat.heads.base import Head, HeadRecord, describe_training
from speechfeat.heads.binding import Binding
from speechfeat.heads.choosing import LayerPlan, plan_layers
from speechfeat.heads.estimators import CLASSIFIER, TunedClassifier, pooled_head
from speechfeat.heads.examples import Column, Examples, read_examples
from speechfeat.heads.states import describe_pipeline, plain, restore_pipeline
from speechfeat.layers import Layers
from speechfeat.store import Store


class PooledHead(Head):
    """A classifier of embeddings.

    Made by `train_head` and `load_head`.

    Args:
        record: what is known of it; its option "pipeline" is filled in here.
        pipeline: fitted on embeddings, layers side by side, and on the places of classes in the record.
    """

    def __init__(self, record: HeadRecord, pipeline: Pipeline) -> None:
        super().__init__(record)
        self.pipeline = pipeline

    def probabilities(self, store: Store, ids: Sequence[str] | None = None) -> np.ndarray:
        """Of every class, for utterances of a store, `[n, C]`; in the order of `ids`, or of `store.ids`.

        Raises:
            ParameterError: if the features are not those that it was trained on.
            StoreError: if an id is not in the store.
        """
        return self.answer(self.record.binding.embeddings(store, ids))

    def answer(self, embeddings: np.ndarray) -> np.ndarray:
        """Probabilities straight from embeddings, `[n, C]` float64.

        Args:
            embeddings: `[n, L, D']`, the layers of the binding in their order.

        Raises:
            ParameterError: if they are of another shape.
        """
        values, layers = np.asarray(embeddings), len(self.record.binding.layers)
        width = self.pipeline.n_features_in_ // layers
        if values.ndim != 3 or values.shape[1:] != (layers, width):
            raise ParameterError(
                f"embeddings of the shape {values.shape} do not fit this head; "
                f"give [n, L, D'] with L={layers} and D'={width}"
            )
        if not len(values):
            return np.zeros((0, len(self.record.classes)))
        return self.pipeline.predict_proba(side_by_side(values))

    def arrays(self) -> dict[str, np.ndarray]:
        """What `save` writes beside the record."""
        return describe_pipeline(self.pipeline)[1]

    @classmethod
    def from_arrays(cls, record: HeadRecord, arrays: Mapping[str, np.ndarray]) -> Self:
        """A head from what was saved.

        Raises:
            ModelError: if this does not fit together.
        """
        pipeline = restore_pipeline(record.options.get("pipeline", ()), arrays)
        width, classes, layers = pipeline.n_features_in_, list(pipeline.classes_), len(record.binding.layers)
        if not layers or width % layers or classes != list(range(len(record.classes))):
            raise ModelError(
                f"this head is damaged: its classifier takes {width} dimensions and tells {len(classes)} classes, its "
                f"record has {layers} layers and {len(record.classes)} classes; train it again"
            )
        return cls(record, pipeline)


def train_pooled_head(
    store: Store,
    labels: Column,
    kind: str = "logistic",
    *,
    ids: Sequence[str] | None = None,
    groups: Column | None = None,
    layers: Layers | None = None,
    task: str | None = None,
    folds: int = 3,
    seed: int = 0,
    **options: Any,
) -> PooledHead:
    """Train a head on the embeddings of a store; see `train_head`.

    Args:
        store: that has the embeddings.
        labels: as for `train_head`.
        kind: one of `POOLED_KINDS`.
        ids: as for `train_head`.
        groups: as for `train_head`.
        layers: as for `train_head`; several are laid side by side.
        task: as for `train_head`.
        folds: that the regularisation is chosen in, at most.
        seed: of the folds and the training.
        options: of `pooled_head`.

    Raises:
        ParameterError: as of `train_head`.
        StoreError: if an id is not in the store.
    """
    estimator = pooled_head(kind, folds=folds, seed=seed, **options)
    given = {name: plain(name, value) for name, value in options.items()}
    material = gather_embeddings(store, labels, ids=ids, groups=groups, layers=layers, task=task, seed=seed)
    return fit_pooled_head(estimator, kind, material, {"folds": folds, "seed": seed, **given})


class PooledMaterial(NamedTuple):
    """What a head on embeddings is trained on.

    Attributes:
        store: that has the embeddings.
        examples: utterances, labels, groups.
        plan: of the layers.
        binding: of the features.
        values: `[n, L * D']` float32, layers side by side.
    """

    store: Store
    examples: Examples
    plan: LayerPlan
    binding: Binding
    values: np.ndarray


def gather_embeddings(
    store: Store,
    labels: Column,
    *,
    ids: Sequence[str] | None = None,
    groups: Column | None = None,
    layers: Layers | None = None,
    task: str | None = None,
    seed: int = 0,
) -> PooledMaterial:
    """Read what a head is trained on; takes and raises what `train_pooled_head` does."""
    examples = read_examples(store, labels, ids, groups, task)
    plan = plan_layers(store, examples, layers, seed=seed)
    binding = Binding.of(store, plan.layers)
    values = side_by_side(binding.embeddings(store, examples.ids))
    return PooledMaterial(store, examples, plan, binding, values)


def fit_pooled_head(
    estimator: TunedClassifier, kind: str, material: PooledMaterial, told: Mapping[str, Any]
) -> PooledHead:
    """Fit a classifier of `pooled_head` and bind it to the features.

    Args:
        estimator: not fitted yet.
        kind: that it is of.
        material: to fit it on.
        told: options for the record.

    Raises:
        ParameterError: if an option is out of range, or there are too few examples for this kind.
    """
    values, examples = material.values, material.examples
    try:
        estimator.fit(values, examples.codes, examples.groups)
    except ParameterError:
        raise
    except ValueError as error:  # scikit-learn's, of an option out of range or too few examples for this kind
        raise ParameterError(f"cannot train a {kind!r} head on {len(values)} utterances: {error}") from error
    options = {
        **told,
        **material.plan.options,
        "chosen": _named(estimator.best_params_),
        "search": [{**_named(params), estimator.metric: score} for params, score in estimator.scores_],
    }
    return bind_pipeline(estimator.best_estimator_, kind, material, options)


def bind_pipeline(pipeline: Pipeline, kind: str, material: PooledMaterial, options: Mapping[str, Any]) -> PooledHead:
    """A head of a fitted pipeline.

    Args:
        pipeline: fitted on embeddings and on the places of classes.
        kind: of the head.
        material: that it was fitted on.
        options: for the record.
    """
    examples = material.examples
    record = HeadRecord(
        kind,
        examples.task,
        examples.classes,
        material.binding,
        {**options, "pipeline": describe_pipeline(pipeline)[0]},
        describe_training(material.store, examples.ids, examples.labels),
    )
    return PooledHead(record, pipeline)


def _named(params: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(f"{CLASSIFIER}__"): plain(name, value) for name, value in params.items()}


def side_by_side(embeddings: np.ndarray) -> np.ndarray:
    """`[n, L * D']` float32: the same numbers whatever precision the embeddings come in."""
    return np.asarray(embeddings, np.float32).reshape(len(embeddings), -1)
