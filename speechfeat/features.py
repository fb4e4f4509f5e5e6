"""Recordings as input of scikit-learn: `SpeechFeatures` turns paths or arrays into embeddings inside a pipeline."""

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from speechfeat.encoders.base import Encoder
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.encoders.loading import as_encoder
from speechfeat.errors import ParameterError


class SpeechFeatures(TransformerMixin, BaseEstimator):
    """Embeddings of recordings, as a scikit-learn transformer.

    It has nothing to learn: `fit` opens the encoder. The encoder itself is not kept in pickles and clones; it is
    opened again where it is needed.

    Args:
        model: as for `load_encoder`, or an encoder, which has its layers, device and dtype already.
        layers: as for `load_encoder`; several layers are laid side by side.
        pool: "mean", "std", "mean+std", "max", "first" or "last".
        sample_rate: of arrays, in Hz; None means that of the encoder.
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.

    Example:
        make_pipeline(SpeechFeatures("wavlm-base-plus"), StandardScaler(), LogisticRegression()).fit(paths, labels)
    """

    def __init__(  # noqa: PLR0917 - an estimator's parameters are set by name
        self,
        model: Any = DEFAULT_MODEL,
        layers: Any = "penultimate",
        pool: str = "mean",
        sample_rate: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.model = model
        self.layers = layers
        self.pool = pool
        self.sample_rate = sample_rate
        self.device = device
        self.dtype = dtype

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Open the encoder and check the first recordings' kind; nothing is learnt.

        Raises:
            ParameterError: if X is not a list of paths or of arrays.
        """
        del y
        recordings = self._recordings(X, reset=True)
        encoder = self._open()
        width = encoder.embed(recordings[:1], self.pool, sample_rate=self.sample_rate)
        self.num_dims_ = int(np.prod(width.shape[1:]))
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Embeddings `[n, D']` float32 of n recordings; layers side by side, `[n, L * D']`.

        Raises:
            AudioError: for the first recording that cannot be encoded.
        """
        recordings = self._recordings(X, reset=False)
        vectors = self._open().embed(recordings, self.pool, sample_rate=self.sample_rate)
        return vectors.reshape(len(recordings), -1)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the dimensions of the embedding."""
        del input_features
        return np.array([f"speechfeatures{index}" for index in range(self.num_dims_)], dtype=object)

    def _recordings(self, X: Any, reset: bool) -> list[Any]:  # noqa: N803 - scikit-learn's name
        """Paths or clips; a numeric `[n, N]` array holds one clip a row, and scikit-learn's rules hold for it."""
        listed = listed_recordings(X)
        return list(validate_data(self, X, reset=reset)) if listed is None else listed

    def _open(self) -> Encoder:
        wanted = (self.model, str(self.layers), self.device, self.dtype)
        if getattr(self, "_opened", (None, None))[0] != wanted:
            self._opened = (wanted, as_encoder(self.model, self.layers, device=self.device, dtype=self.dtype))
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_opened"}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = True
        return tags


def listed_recordings(X: Any) -> list[Any] | None:  # noqa: N803 - scikit-learn's name
    """X as a list, if it is a list, Series or column `[n, 1]` of paths, or a list of arrays `[N]`; else None.

    Raises:
        ParameterError: if it is one path.
    """
    if isinstance(X, str | os.PathLike):
        raise ParameterError(f"X={X!r} is one path; give a list of paths or of arrays")
    items = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(items, np.ndarray) and items.shape[1:] == (1,):
        items = items[:, 0]
    if not isinstance(items, Sequence | np.ndarray) or len(items) == 0:
        return None
    is_path = isinstance(items[0], str | os.PathLike)
    is_clip = isinstance(items, Sequence) and isinstance(items[0], np.ndarray) and items[0].ndim == 1
    return list(items) if is_path or is_clip else None
