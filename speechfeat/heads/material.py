"""What a head on frames is trained on: utterances, their labels and frames, and which are kept apart to validate on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from speechfeat.errors import ParameterError
from speechfeat.heads.base import describe_training
from speechfeat.heads.batches import Reader, open_reader
from speechfeat.heads.binding import Binding
from speechfeat.heads.examples import Column, Examples, read_examples
from speechfeat.heads.fitting import FrameConfig
from speechfeat.heads.holdout import split_validation
from speechfeat.heads.networks import check_kind
from speechfeat.layers import Layers, select_layers
from speechfeat.pooling import Pooler, pool_frames
from speechfeat.splits import Fold
from speechfeat.store import Store

# Means and deviations of the features are known well enough from so many utterances.
STATISTICS_UTTERANCES = 2000
# And so is which layer tells most, from so many on each side.
PROBED_UTTERANCES = 1000

Split = Callable[[Examples, FrameConfig], Fold]


@dataclass(frozen=True)
class Material:
    """What a head is trained on.

    Attributes:
        kind: of the head.
        binding: the features it takes.
        examples: all utterances with their labels.
        reader: of their frames.
        fold: rows to train on and rows to validate on.
        crop: frames that are taken of a longer utterance in an epoch; None for all.
        training: for the record.
    """

    kind: str
    binding: Binding
    examples: Examples
    reader: Reader
    fold: Fold
    crop: int | None
    training: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the rows to train on, sorted."""
        return tuple(sorted({self.examples.labels[row] for row in self.fold[0]}))

    @cached_property
    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the frames to train on, `[L, D]` each."""
        rows = np.random.default_rng(0).permutation(self.fold[0])[:STATISTICS_UTTERANCES]
        pooler = Pooler("mean+std")
        for row in rows.tolist():
            pooler.add(self.reader.read(row).astype(np.float32))
        mean, std = np.split(pooler.result(), 2, axis=1)
        return mean, std

    @cached_property
    def pooled(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Mean and deviation over the frames, `[m, L, 2 D]`, of some rows; these, `[m]`; how many first ones train."""
        rng = np.random.default_rng(0)
        train, validation = (rng.permutation(rows)[:PROBED_UTTERANCES] for rows in self.fold)
        rows = np.concatenate([train, validation])
        pooled = [pool_frames(self.reader.read(row).astype(np.float32), "mean+std") for row in rows.tolist()]
        return np.stack(pooled), rows, len(train)


def gather(
    store: Store,
    labels: Column,
    kind: str,
    config: FrameConfig,
    *,
    ids: Sequence[str] | None,
    groups: Column | None,
    layers: Layers | None,
    validation: Sequence[str] | None,
    task: str | None,
    frames: bool = True,
    split: Split | None = None,
) -> Material:
    """Find what a head is trained on.

    Args:
        store: as the others, see `train_frame_head`.
        labels: of the utterances.
        kind: of the head.
        config: how it is trained.
        ids: of the utterances.
        groups: that validation keeps apart.
        layers: that it takes.
        validation: ids to validate on.
        task: the label that it tells.
        frames: whether it takes frames; else embeddings, each as a single frame.
        split: that makes a fold; None for `split_validation`.

    Raises:
        ParameterError: if one of them is not possible with the others.
        StoreError: if an id is not in the store.
    """
    check_kind(kind)
    num_layers = store.config["encoder"]["num_layers"]
    wanted = None if layers is None or layers in ("all", "auto") else select_layers(layers, num_layers).indices
    binding = Binding.of(store, wanted, frames=frames)
    examples = read_examples(store, labels, ids, groups, task)
    reader = open_reader(store, binding, examples.ids, config.cache_bytes)
    if validation is not None:
        fold = _listed(examples.ids, validation)
    elif not config.validation_share:
        fold = (np.arange(len(examples.ids)), np.array([], int))
    else:
        fold = (split or _by_share)(examples, config)
    crop = None
    if config.crop_seconds is not None:
        crop = max(1, round(config.crop_seconds * store.grid["sample_rate"] / store.grid["hop"]))
    num_groups = None if examples.groups is None else len(set(examples.groups))
    told = {"validation": len(fold[1]), "groups": num_groups}
    training = {**describe_training(store, examples.ids, examples.labels), **told}
    return Material(kind, binding, examples, reader, fold, crop, training)


def _by_share(examples: Examples, config: FrameConfig) -> Fold:
    groups = None if examples.groups is None else np.array(examples.groups)
    return split_validation(examples.codes, examples.classes, groups, config.validation_share, config.seed)


def _listed(ids: Sequence[str], validation: Sequence[str]) -> Fold:
    listed = set(validation)
    if unknown := sorted(listed.difference(ids)):
        raise ParameterError(f"{len(unknown)} ids to validate on are not among the utterances, first {unknown[0]!r}")
    apart = np.array([key in listed for key in ids])
    if apart.all() or not apart.any():
        raise ParameterError(
            f"{int(apart.sum())} of {len(ids)} utterances are to validate on; it must be a part of them"
        )
    return np.flatnonzero(~apart), np.flatnonzero(apart)
