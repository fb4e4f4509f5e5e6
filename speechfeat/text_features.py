"""Texts as input of scikit-learn: `TextFeatures` turns strings into embeddings inside a pipeline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import Tags

from speechfeat.encoders.text_loading import as_text_encoder
from speechfeat.errors import ParameterError
from speechfeat.features import EncoderFeatures


class TextFeatures(EncoderFeatures):
    """Embeddings of texts, as a scikit-learn transformer.

    It has nothing to learn: `fit` opens the encoder. The encoder itself is not kept in pickles and clones; it is
    opened again where it is needed.

    Args:
        model: as for `load_text_encoder`, or an encoder, which has its layers, device and dtype already.
        layers: as for `load_text_encoder`; several layers are laid side by side.
        pool: "mean", "std", "mean+std", "max", "first", "last", "cls" or "last_token".
        keep_special: let the pooling see the special tokens.
        device: as for `load_text_encoder`.
        dtype: as for `load_text_encoder`.

    Example:
        make_pipeline(TextFeatures("all-MiniLM-L6-v2", "last"), LogisticRegression()).fit(texts, labels)
    """

    def __init__(  # noqa: PLR0917 - an estimator's parameters are set by name
        self,
        model: Any = "all-MiniLM-L6-v2",
        layers: Any = "penultimate",
        pool: str = "mean",
        keep_special: bool = False,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.model = model
        self.layers = layers
        self.pool = pool
        self.keep_special = keep_special
        self.device = device
        self.dtype = dtype

    def _inputs(self, X: Any, reset: bool) -> list[str]:  # noqa: N803 - scikit-learn's name
        """Strings, from a list, a Series or a column `[n, 1]` of them."""
        del reset
        if isinstance(X, str):
            raise ParameterError(f"X={X[:40]!r} is one text; give a list of texts")
        items = X.to_numpy() if hasattr(X, "to_numpy") else X
        if isinstance(items, np.ndarray) and items.shape[1:] == (1,):
            items = items[:, 0]
        if not isinstance(items, Sequence | np.ndarray) or not all(isinstance(item, str) for item in items):
            raise ParameterError("X must be a list, a Series or a column [n, 1] of strings")
        return [str(item) for item in items]

    def _embed(self, inputs: list[str]) -> np.ndarray:
        return self._open(as_text_encoder).embed(inputs, self.pool, keep_special=self.keep_special)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags
