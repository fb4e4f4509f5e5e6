"""Which features a head takes: of which encoder, which layers, which pooling."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import load_encoder
from speechfeat.errors import ParameterError
from speechfeat.store import Store

# Of what a store says of its encoder: what makes it this encoder. Not among them is the precision it was run in: a head
# trained on features from a GPU serves on a CPU.
IDENTITY = ("family", "definition", "weights", "num_layers", "dim")


@dataclass(frozen=True)
class Binding:
    """The features that a head was trained on and takes.

    Attributes:
        model: what `load_encoder` is given to have the encoder again.
        encoder: what identifies it, its weights' hash among others.
        layers: numbers of the layers that are taken, in this order.
        pool: of the embeddings, or "none" for a head on frames.
    """

    model: str
    encoder: Mapping[str, Any]
    layers: tuple[int, ...]
    pool: str

    @classmethod
    def of(cls, store: Store, layers: Sequence[int] | None = None, *, frames: bool = False) -> Self:
        """Of the features in a store.

        Args:
            store: that the head is trained on.
            layers: numbers of those it takes; None for all that the store has.
            frames: whether it takes frames rather than embeddings.

        Raises:
            ParameterError: if the store does not have the layers, or no frames or embeddings.
        """
        named = store.info["model"]
        found = store.config["encoder"]
        binding = cls(
            _place(named),
            {name: found[name] for name in IDENTITY},
            tuple(found["layers"] if layers is None else layers),
            "none" if frames else store.config["pool"],
        )
        if not frames and store.config["store"]["embedding_shape"] is None:
            raise ParameterError(f"{store!r} has no embeddings; extract with a pooling (--pool mean+std)")
        if frames and not store.config["store"]["frames"]:
            raise ParameterError(f"{store!r} keeps no frames; extract without --no-frames")
        binding.check(store)
        return binding

    @classmethod
    def of_encoder(cls, encoder: Encoder, pool: str) -> Self:
        """Of the features that an encoder gives.

        Args:
            encoder: with the layers that are taken.
            pool: of the embeddings, or "none" for a head on frames.
        """
        found: dict[str, Any] = encoder.describe()
        return cls(_place(encoder.name), {name: found[name] for name in IDENTITY}, encoder.selection.indices, pool)

    def check(self, store: Store) -> None:
        """Refuse a store of other features.

        Raises:
            ParameterError: if it is of another encoder, which names both, or lacks the layers or the pooling.
        """
        found = store.config["encoder"]
        self._check_encoder(found, f"{store!r} is of {store.info.get('model', 'an encoder')!r}")
        if missing := set(self.layers).difference(found["layers"]):
            raise ParameterError(
                f"this head takes layer {', '.join(map(str, sorted(missing)))} of {self.model!r}, and {store!r} has "
                f"{', '.join(map(str, found['layers']))}; extract with -l {','.join(map(str, self.layers))} or -l all"
            )
        if self.pool not in ("none", store.config["pool"]):
            raise ParameterError(
                f"this head takes {self.pool!r} embeddings and {store!r} has {store.config['pool']!r}; "
                f"extract with --pool {self.pool}"
            )

    def embeddings(self, store: Store, ids: Sequence[str] | None = None) -> np.ndarray:
        """`[n, L, D']` float32, the layers of the binding in their order.

        Raises:
            ParameterError: as of `check`.
            StoreError: if an id is not in the store.
        """
        self.check(store)
        values = store.embeddings(ids)[1]
        return self._select(store, values if store.config["encoder"]["stacked"] else values[:, None])

    def frames(self, store: Store, key: str) -> np.ndarray:
        """`[L, T, D]` float32 of one utterance, the layers of the binding in their order; does not `check`."""
        values = store.frames(key).values
        # One utterance of a store with a layer axis, `[L, T, D]`, is taken like n of one: layers are second to last.
        stacked = values if store.config["encoder"]["stacked"] else values[None]
        return self._select(store, stacked[None])[0]

    def open_encoder(self, model: str | os.PathLike[str] | None = None, **options: Any) -> Encoder:
        """The encoder, with the layers of the binding.

        Args:
            model: where it is now, if not where it was; see `load_encoder`.
            options: further arguments of `load_encoder`.

        Raises:
            ParameterError: if what is there is another encoder.
            ModelError: if it cannot be loaded.
        """
        source = self.model if model is None else os.fspath(model)
        window = {"short_window": True} if self.encoder["definition"].get("short_window") else {}
        encoder = load_encoder(source, self.layers, **{**window, **options})
        self._check_encoder(encoder.describe(), f"{source!r} is another")
        return encoder

    def _check_encoder(self, found: Mapping[str, Any], what: str) -> None:
        differing = [name for name in IDENTITY if found[name] != self.encoder[name]]
        if differing:
            told = ", ".join(f"{name} {self.encoder[name]!r} and {found[name]!r}" for name in differing)
            raise ParameterError(
                f"this head takes features of {self.model!r}, and {what} ({told}); use the encoder it was trained with"
            )

    def _select(self, store: Store, values: np.ndarray) -> np.ndarray:
        """The layers wanted of `[n, L, ...]`."""
        there = list(store.config["encoder"]["layers"])
        places = [there.index(layer) for layer in self.layers]
        return values if places == list(range(len(there))) else values[:, places]


def _place(model: str) -> str:
    """What a model was called, a directory by its whole path."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model
