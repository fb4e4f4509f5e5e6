"""Recordings as input of scikit-learn: `SpeechFeatures` turns paths or arrays into embeddings inside a pipeline."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.encoders.loading import as_encoder
from speechfeat.errors import ParameterError


class EncoderFeatures(TransformerMixin, BaseEstimator):
    """Embeddings by an encoder that is opened when it is first needed, and again in pickles and clones.

    A kind of input makes a subclass, whose parameters are `model`, `layers`, `pool`, `device`, `dtype` and its own.
    """

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Open the encoder and check the first inputs' kind; nothing is learnt.

        Raises:
            ParameterError: if X is not a list of inputs.
        """
        del y
        inputs = self._inputs(X, reset=True)
        self.num_dims_ = int(np.prod(self._embed(inputs[:1]).shape[1:]))
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Embeddings `[n, D']` float32 of n inputs; layers side by side, `[n, L * D']`.

        Raises:
            InputError: for the first input that cannot be encoded.
        """
        inputs = self._inputs(X, reset=False)
        return self._embed(inputs).reshape(len(inputs), -1)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the dimensions of the embedding."""
        del input_features
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{index}" for index in range(self.num_dims_)], dtype=object)

    def _inputs(self, X: Any, reset: bool) -> list[Any]:  # noqa: N803 - scikit-learn's name
        raise NotImplementedError

    def _embed(self, inputs: list[Any]) -> np.ndarray:
        raise NotImplementedError

    def _open(self, load: Callable[..., Any]) -> Any:
        wanted = (self.model, str(self.layers), self.device, self.dtype)
        if getattr(self, "_opened", (None, None))[0] != wanted:
            self._opened = (wanted, load(self.model, self.layers, device=self.device, dtype=self.dtype))
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
        return tags


class SpeechFeatures(EncoderFeatures):
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

    def _inputs(self, X: Any, reset: bool) -> list[Any]:  # noqa: N803 - scikit-learn's name
        """Paths or clips; a numeric `[n, N]` array holds one clip a row, and scikit-learn's rules hold for it."""
        listed = listed_recordings(X)
        return list(validate_data(self, X, reset=reset)) if listed is None else listed

    def _embed(self, inputs: list[Any]) -> np.ndarray:
        return self._open(as_encoder).embed(inputs, self.pool, sample_rate=self.sample_rate)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
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
