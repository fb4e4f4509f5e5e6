"""Which layer a head takes: chosen on its training data, or named."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from speechfeat.errors import ParameterError
from speechfeat.heads.binding import Binding
from speechfeat.heads.estimators import inner_folds
from speechfeat.heads.examples import Examples
from speechfeat.layers import Layers, select_layers
from speechfeat.probing import LayerScore, probe_layers
from speechfeat.store import Store

# Of the bootstrap: its interval is only shown, the choice is by the score.
NUM_DRAWS = 200


class LayerChoice(NamedTuple):
    """A layer and how all of them did.

    Attributes:
        position: of the best along the layer axis; of several that are equally good the lowest.
        scores: of every layer, with 95 % intervals.
    """

    position: int
    scores: list[LayerScore]


class LayerPlan(NamedTuple):
    """The layers that a head takes.

    Attributes:
        layers: their numbers.
        options: for the record: what was asked for and, if they were chosen, the metric and the scores of all layers,
            `layer_scores` being their numbers and, for each, the score and the ends of its interval.
    """

    layers: tuple[int, ...]
    options: dict[str, Any]


def choose_layer(
    embeddings: np.ndarray,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    metric: str = "uar",
    folds: int = 3,
    seed: int = 0,
) -> LayerChoice:
    """The layer that tells most, by cross-validation on training data alone.

    Each layer is scored by the linear probe of `probe_layers`, whose strength is fixed, in folds that keep groups
    whole where groups are given. The score of the layer chosen is the best of many: it is no estimate of how good a
    head will be on other data.

    Args:
        embeddings: `[n, L, D']` of the training data.
        labels: `[n]`.
        groups: `[n]`, such as speakers; None for folds of utterances.
        metric: "uar" or "accuracy".
        folds: the most there are; fewer where classes or groups allow no more.
        seed: of their shuffling.

    Raises:
        ParameterError: if shapes do not agree, there is one class only, or not even two folds can be made.
    """
    splits = inner_folds(labels, groups, folds, seed)
    if not splits:
        units = "" if groups is None else f" in {len(np.unique(np.asarray(groups)))} groups"
        raise ParameterError(
            f"{len(embeddings)} utterances of {len(np.unique(np.asarray(labels)))} classes{units} give no two folds to "
            "choose a layer by, each with classes to train and to test; name a layer"
        )
    scores = probe_layers(embeddings, labels, splits, groups=groups, metric=metric, num=NUM_DRAWS)
    return LayerChoice(int(np.argmax([one.score for one in scores])), scores)


def plan_layers(
    store: Store, examples: Examples, layers: Layers | None = None, *, metric: str = "uar", seed: int = 0
) -> LayerPlan:
    """The layers that are meant.

    Args:
        store: that has them.
        examples: that a head is trained on.
        layers: None or "all" for all that the store has; "auto" for the one that tells most, see `choose_layer`; else
            as for `load_encoder`.
        metric: of the choice.
        seed: of the choice.

    Raises:
        ParameterError: if the store lacks a layer, or "auto" cannot choose.
    """
    everything = tuple(store.config["encoder"]["layers"])
    if layers is None or layers == "all":
        return LayerPlan(everything, {})
    if layers != "auto":
        return LayerPlan(select_layers(layers, store.config["encoder"]["num_layers"]).indices, {})
    if len(everything) == 1:
        return LayerPlan(everything, {"layers": "auto"})
    embeddings = Binding.of(store).embeddings(store, examples.ids)
    position, scores = choose_layer(embeddings, examples.codes, examples.groups, metric=metric, seed=seed)
    told = {"layer_metric": metric, "layer_scores": [list(everything), [list(one) for one in scores]]}
    return LayerPlan(everything[position : position + 1], {"layers": "auto", **told})
