"""Embeddings of several encoders side by side, joined by id: speech and text of one corpus, or two speech encoders."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from speechfeat.errors import ParameterError
from speechfeat.store import Store
from speechfeat.store_shards import Row
from speechfeat.store_writer import StoreWriter

# Of the parts: what makes their embeddings these.
COMPARED = ("family", "definition", "weights", "num_layers", "dim", "layers", "stacked")


def join_stores(stores: Sequence[Store], out: str | os.PathLike[str]) -> Store:
    """A store of the embeddings of others side by side, for the ids that all of them have.

    Heads take it like any other. One of the stores may have several layers: then every layer has the others' embedding
    beside it, so that a head can choose among them.

    Args:
        stores: two or more, with embeddings.
        out: directory of the store that is made, or continued if it is of the same parts.

    Raises:
        ParameterError: for less than two stores, more than one with several layers, or stores without a common id.
        StoreError: if a store has no embeddings, or `out` is of other parts.

    Example:
        both = sf.join_stores([sf.Store("features"), sf.Store("text_features")], "both")
        head = sf.train_head(both, labels, ids=both.ids)
    """
    if len(stores) < 2:
        raise ParameterError(f"{len(stores)} stores were given; joining takes two or more")
    stacked = [store for store in stores if store.config["encoder"]["stacked"]]
    if len(stacked) > 1:
        raise ParameterError(f"{' and '.join(map(repr, stacked))} have several layers; all but one must have one (-l)")
    ids = sorted(set(stores[0].ids).intersection(*(store.ids for store in stores[1:])))
    if not ids:
        raise ParameterError(
            f"{' and '.join(map(repr, stores))} have no id in common, such as {stores[0].ids[0]!r} and "
            f"{stores[1].ids[0]!r}; extract both from one manifest"
        )
    embeddings = _side_by_side([store.embeddings(ids)[1] for store in stores])
    rows = stores[0].table().set_index("id").loc[ids]
    columns = [rows[name].tolist() for name in ("path", "start", "duration", "num_frames", "sample_rate")]
    with StoreWriter(
        out, _config(stores, stacked), _info(stores), embedding_shape=embeddings.shape[1:], frames=False
    ) as writer:
        for key, path, start, duration, num_frames, rate, values in zip(ids, *columns, embeddings, strict=True):
            if key not in writer.done:
                sample_rate = None if np.isnan(rate) else int(rate)
                writer.add(Row(key, path, start, duration, int(num_frames), sample_rate), None, values)
    return Store(out)


def _side_by_side(parts: list[np.ndarray]) -> np.ndarray:
    """`[n, D]` of all, or `[n, L, D]` if one has layers."""
    layers = max((part.shape[1] for part in parts if part.ndim == 3), default=None)
    if layers is None:
        return np.concatenate(parts, axis=1)
    return np.concatenate(
        [part if part.ndim == 3 else np.repeat(part[:, None], layers, axis=1) for part in parts], axis=2
    )


def _config(stores: Sequence[Store], stacked: Sequence[Store]) -> dict[str, Any]:
    encoders = [store.config["encoder"] for store in stores]
    leading = (stacked or stores)[0].config["encoder"]
    parts = [
        {**{name: encoder[name] for name in COMPARED}, "pool": store.config["pool"], "store": store.fingerprint}
        for store, encoder in zip(stores, encoders, strict=True)
    ]
    return {
        "encoder": {
            "family": "Joined",
            "definition": {"parts": parts},
            "weights": "+".join(encoder["weights"] for encoder in encoders),
            "num_layers": leading["num_layers"],
            "dim": sum(encoder["dim"] for encoder in encoders),
            "layers": leading["layers"],
            "stacked": leading["stacked"],
        },
        "pool": " | ".join(store.config["pool"] for store in stores),
    }


def _info(stores: Sequence[Store]) -> dict[str, Any]:
    return {"model": " + ".join(str(store.info.get("model", "an encoder")) for store in stores)}
