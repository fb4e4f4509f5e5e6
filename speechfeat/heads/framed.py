"""Heads on the frames of a store: trained in seconds to minutes, saved, and used on other stores.

    head = train_frame_head(store, "emotion", "attentive", groups="speaker")
    head.mix                                     # how much of each layer it takes
    head.predict(other_store)

What is taken from a store is read utterance by utterance.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from speechfeat.errors import ParameterError
from speechfeat.heads.examples import Column
from speechfeat.heads.fitting import FrameConfig
from speechfeat.heads.material import Material, gather
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.networks import KINDS
from speechfeat.heads.objectives import CrossEntropy, class_weights
from speechfeat.heads.trials import Checkpoint, Trials, train_best
from speechfeat.layers import Layers
from speechfeat.store import Store

FRAME_KINDS = tuple(KINDS)
# SUPERB's (Yang et al., 2021).
RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def train_frame_head(
    store: Store,
    labels: Column,
    kind: str = "attentive",
    *,
    ids: Sequence[str] | None = None,
    groups: Column | None = None,
    layers: Layers | None = None,
    config: FrameConfig | None = None,
    rates: Sequence[float] = (),
    validation: Sequence[str] | None = None,
    task: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    stop: threading.Event | None = None,
    **options: Any,
) -> FrameHead:
    """Train a head on the frames of a store.

    The layers are mixed by learnt weights, go through a body (none, an MLP, convolutions, a recurrent network), are
    pooled over time and projected to an embedding, of which the classes are told. The epoch that is best on the
    validation part is kept.

    Weights that start even may end in a mix that is worse than one of its layers alone. So the head is trained again
    with mixes that start at the layers that a probe finds best, and the best one is kept (`FrameConfig.mix_starts`).

    Args:
        store: with frames, best of several layers (`-l all`).
        labels: a column of its table, or a label for each of the utterances.
        kind: one of `FRAME_KINDS`.
        ids: of the utterances; None for all.
        groups: such as speakers, a column or one for each: the validation part has others than are trained on. None
            divides utterances, as is right where the labels are the speakers.
        layers: that are mixed, as for `load_encoder`; None, "all" or "auto" for all that the store has.
        config: how it is made and trained.
        rates: learning rates to try instead of the one of `config`, see `sweep_rates`.
        validation: ids of the utterances to validate on, such as an official list; None takes a share of them.
        task: name of the label; None for that of the column.
        checkpoint: directory to save the head in whenever it is the best so far, and at the end.
        overwrite: replace a head that is there.
        stop: set it, from a signal handler or another thread, to end with the best head so far. Without it, Ctrl-C
            does.
        options: fields of `FrameConfig` that replace those of `config`.

    Raises:
        ParameterError: if an argument is not allowed, the store has no frames or not these layers, there is one class
            only, or the loss diverges.
        StoreError: if an id is not in the store, or the disk refuses.
        KeyboardInterrupt: if it is stopped before the first epoch is over.

    Example:
        head = train_frame_head(store, "emotion", "attentive", groups="speaker", epochs=20)
    """
    chosen = configure(config, options)
    saver = Checkpoint(checkpoint, overwrite)
    material = gather(
        store, labels, kind, chosen, ids=ids, groups=groups, layers=layers, validation=validation, task=task
    )
    trials = Trials(material, cross_entropy(material, chosen), saver, stop=stop)
    return train_best(trials, with_rates(chosen, rates, material))


def sweep_rates(
    store: Store,
    labels: Column,
    kind: str = "attentive",
    rates: Sequence[float] = RATES,
    **arguments: Any,
) -> FrameHead:
    """Train a head with each of several learning rates, from the same weights, and take the best by validation.

    All of them are in `record.training["trials"]`: learning_rate, start (the layer that the mix starts at, None for
    all), score (None where the loss diverged), epoch, ended. Other starts of the mix are tried with the best rate
    only. The score of the best is the best of several: report one on other utterances.

    Args:
        store: as for `train_frame_head`, like all but the rates.
        labels: of the utterances.
        kind: of the head.
        rates: to try, in this order.
        arguments: further ones of `train_frame_head`; raises what that raises.
    """
    return train_frame_head(store, labels, kind, rates=rates, **arguments)


def configure(config: FrameConfig | None, options: Mapping[str, Any]) -> FrameConfig:
    """The configuration with some of its fields replaced.

    Raises:
        ParameterError: for a field that there is not, or a value out of range.
    """
    known = [one.name for one in fields(FrameConfig)]
    if unknown := sorted(set(options).difference(known)):
        raise ParameterError(f"{unknown[0]!r} is no option of a head on frames; it takes {', '.join(known)}")
    return replace(config or FrameConfig(), **options)


def with_rates(config: FrameConfig, rates: Sequence[float], material: Material) -> list[FrameConfig]:
    """A configuration for each rate; the one given where there is none.

    Raises:
        ParameterError: if there are rates and nothing to choose by.
    """
    if rates and not len(material.fold[1]):
        raise ParameterError("learning rates are compared on a validation part; give a validation_share above 0")
    return [replace(config, learning_rate=rate) for rate in rates] or [config]


def cross_entropy(material: Material, config: FrameConfig) -> CrossEntropy:
    """The objective that tells the classes apart."""
    names = material.classes
    train, validation = material.fold
    labels = material.examples.labels
    if untrained := {labels[row] for row in validation}.difference(names):
        raise ParameterError(f"class {min(untrained)!r} is among the utterances to validate on and not to train on")
    numbers = {name: number for number, name in enumerate(names)}
    classes = np.array([numbers[label] for label in labels])
    return CrossEntropy(classes, class_weights(config.class_weight, names, classes[train]))
