"""Networks on frames that give a vector for a voice, trained with an additive angular margin, and kept."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechfeat.heads.angular import train_angular_head
from speechfeat.heads.base import HEAD_JSON, describe_training
from speechfeat.heads.framed import configure
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.opening import load_head
from speechfeat.store import Store


def voice_network(
    store: Store,
    ids: Sequence[str],
    speakers: Sequence[str],
    folder: str | os.PathLike[str],
    kind: str = "stats",
    *,
    layers: Sequence[int],
    options: Mapping[str, Any],
) -> FrameHead:
    """The head that `train_angular_head` trains, or the one in `folder` if it was trained so on the same.

    Args:
        store: with frames.
        ids: of the utterances to learn from.
        speakers: of each.
        folder: where the head is kept.
        kind: one of `FRAME_KINDS`.
        layers: numbers of those that are mixed.
        options: fields of `FrameConfig`.

    Raises:
        ParameterError: as of `train_angular_head`.
        ModelError: if the head in `folder` is damaged.
    """
    config = configure(None, options)
    if (Path(folder) / HEAD_JSON).is_file():
        head = load_head(folder)
        record = head.record
        known = describe_training(store, ids, speakers)
        is_same = (record.kind, record.binding.layers) == (kind, tuple(layers))
        is_same &= record.options.get("config") == config.options() and known.items() <= record.training.items()
        if is_same and isinstance(head, FrameHead) and record.training["ended"] != "stop":
            return head
    head = train_angular_head(store, list(speakers), kind, ids=ids, layers=list(layers), config=config, task="speaker")
    head.save(folder, overwrite=True)
    return head
