"""Training a head of any kind, and loading a saved one."""

import os
from collections.abc import Sequence
from typing import Any

from speechfeat.errors import ModelError, ParameterError
from speechfeat.heads.base import Head, read_head
from speechfeat.heads.estimators import POOLED_KINDS, unknown_kind
from speechfeat.heads.examples import Column
from speechfeat.heads.framed import FRAME_KINDS, train_frame_head
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.pooled import PooledHead, train_pooled_head
from speechfeat.layers import Layers
from speechfeat.store import Store

HEAD_KINDS = (*POOLED_KINDS, *FRAME_KINDS)


def train_head(
    store: Store,
    labels: Column,
    kind: str = "logistic",
    *,
    ids: Sequence[str] | None = None,
    groups: Column | None = None,
    layers: Layers | None = None,
    task: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Head:
    """Train a head on the features of a store.

    Whatever is chosen on the way (a layer, a regularisation, when to stop) is chosen on the utterances given.

    Args:
        store: with embeddings or, for a head on frames, with frames.
        labels: a column of `store.table()`, or one label an utterance.
        kind: on embeddings "logistic", "svm", "lda", "knn", "prototype" or "mlp", see `pooled_head`; on frames one of
            `FRAME_KINDS`, see `train_frame_head`.
        ids: of the utterances to train on; None for all.
        groups: as `labels`, such as speakers: none is on both sides where something is chosen. None divides
            utterances, as is right where the labels are the speakers.
        layers: that it takes, as for `load_encoder`. None or "all" is all that the store has: embeddings are laid side
            by side, frames mixed. "auto" is, on embeddings, the one that tells most, see `choose_layer` (the scores of
            all are in `record.options`), and on frames the mix.
        task: what the labels are called; None takes the name of the column.
        seed: of all that is drawn.
        options: of `pooled_head` or of `train_frame_head`.

    Raises:
        ParameterError: if the kind or an option is not known, an utterance has no label or its recording failed, there
            is one class only, or the store lacks the layers, the embeddings or the frames.
        StoreError: if an id is not in the store.

    Example:
        head = train_head(store, "emotion", "logistic", groups="speaker", layers="auto")
        head.save("emotion-head")
    """
    if kind not in HEAD_KINDS:
        raise ParameterError(unknown_kind(kind, HEAD_KINDS))
    train = train_pooled_head if kind in POOLED_KINDS else train_frame_head
    return train(store, labels, kind, ids=ids, groups=groups, layers=layers, task=task, seed=seed, **options)


def load_head(path: str | os.PathLike[str]) -> Head:
    """A head that was saved; it answers as it did.

    Args:
        path: of its directory.

    Raises:
        ModelError: if there is none, it is damaged, or this version has no such kind.
    """
    record, arrays = read_head(path)
    if record.kind not in HEAD_KINDS:
        raise ModelError(f"the head {os.fspath(path)!r}: {unknown_kind(record.kind, HEAD_KINDS)}")
    kind = PooledHead if record.kind in POOLED_KINDS else FrameHead
    return kind.from_arrays(record, arrays)
