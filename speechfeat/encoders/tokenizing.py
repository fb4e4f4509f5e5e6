"""Texts into the numbers of their tokens, with the characters that each token stands for."""

import copy
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from speechfeat.errors import ModelError, TextError
from speechfeat.types import Tokens

# Letters that every vocabulary has, to see which tokens the tokenizer puts around a text.
PROBE = "a b"


class TextTokenizer:
    """The tokenizer of a checkpoint, without the special tokens, which are put around each window later.

    Args:
        tokenizer: of transformers, fast; it is copied, since it keeps truncation and padding as a state.

    Attributes:
        prefix: `[P]` int64, special tokens before every text.
        suffix: `[S]` int64, special tokens after it.
        num_classes: size of the vocabulary.
        max_length: the most tokens of an input by the tokenizer's own settings, special ones included, or None.

    Raises:
        ModelError: if it is a slow one, which knows no offsets, or does more than put tokens around a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError(
                f"{type(tokenizer).__name__} is no fast tokenizer, so it cannot tell the characters of a token; "
                "give a checkpoint with a tokenizer.json"
            )
        self._backend = copy.deepcopy(backend)
        self._backend.no_truncation()
        self._backend.no_padding()
        self.prefix, self.suffix = self._special_tokens()
        self.num_classes = self._backend.get_vocab_size()
        # Transformers writes 1e30 where there is no limit.
        limit = getattr(tokenizer, "model_max_length", None)
        self.max_length = int(limit) if limit is not None and 0 < limit < 10**9 else None

    def _special_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        whole = self._backend.encode(PROBE, add_special_tokens=True).ids
        inner = self._backend.encode(PROBE, add_special_tokens=False).ids
        for start in range(len(whole) - len(inner) + 1):
            if inner and whole[start : start + len(inner)] == inner:
                return np.array(whole[:start], np.int64), np.array(whole[start + len(inner) :], np.int64)
        raise ModelError(
            f"the tokenizer makes {whole} of {PROBE!r} and {inner} without special tokens, which are not around it"
        )

    @property
    def num_special(self) -> int:
        """Special tokens around every text."""
        return len(self.prefix) + len(self.suffix)

    def digest(self) -> str:
        """Hash of everything that decides the tokens of a text."""
        settings = json.loads(self._backend.to_str())
        canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()

    def tokenize(self, texts: Sequence[str]) -> list[Tokens | TextError]:
        """Tokens of each text, or why it has none."""
        valid = [_is_unicode(text) for text in texts]
        encodings = iter(
            self._backend.encode_batch(
                [text for text, fine in zip(texts, valid, strict=True) if fine], add_special_tokens=False
            )
        )
        return [_tokens(text, next(encodings) if fine else None) for text, fine in zip(texts, valid, strict=True)]

    def surround(self, samples: np.ndarray) -> np.ndarray:
        """Tokens of a text or of a window of it, with the special ones around them."""
        return np.concatenate([self.prefix, samples, self.suffix])

    def names(self, tokens: Tokens) -> tuple[str, ...]:
        """The T names of a text's tokens as the vocabulary has them, special ones included."""
        return tuple(self._backend.id_to_token(int(number)) or "" for number in self.surround(tokens.samples))

    def offsets(self, tokens: Tokens) -> np.ndarray:
        """Characters of a text's tokens, `[T, 2]` int32; special ones stand for none, at its begin and its end."""
        end = tokens.offsets[-1, 1]
        before, after = np.zeros((len(self.prefix), 2)), np.full((len(self.suffix), 2), end)
        return np.concatenate([before, tokens.offsets, after]).astype(np.int32)

    def inner(self, num_tokens: int) -> np.ndarray:
        """Which of the `num_tokens` of a text, special ones included, are its own: `[T]` bool."""
        position = np.arange(num_tokens)
        return (position >= len(self.prefix)) & (position < num_tokens - len(self.suffix))


def _tokens(text: str, encoding: Encoding | None) -> Tokens | TextError:
    if encoding is None:
        return TextError("the text holds bytes that are not UTF-8, or half of a surrogate pair; save it as UTF-8")
    if not text.strip():
        return TextError("the text is empty")
    if not encoding.ids:
        return TextError(f"the tokenizer finds no token in {text[:20]!r}")
    return Tokens(np.array(encoding.ids, np.int64), np.array(encoding.offsets, np.int32))


def _is_unicode(text: str) -> bool:
    """Whether a string holds no lone surrogates, which stand for bytes that could not be decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
