"""Encoders of texts: their tokens are samples and frames at once, and everything else is as for recordings.

The frame grid of a text has one sample a second, so that what the path counts in seconds is tokens here. The special
tokens that the tokenizer puts around a text are frames without a sample, as the padding of a convolution would give; a
window of a long text gets them too, and those inside the text are cut off where windows are joined.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from speechfeat.chunking import Chunking
from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.base import BaseEncoder
from speechfeat.encoders.masking import attend_somewhere
from speechfeat.encoders.text_families import TextFamily, find_blocks
from speechfeat.encoders.tokenizing import TextTokenizer
from speechfeat.errors import InputError, ModelError, ParameterError, TextError
from speechfeat.texts import TextOptions, embed_strings, encode_strings
from speechfeat.types import Frames, Tokens
from speechfeat.units import FrameGrid, Stage

# Where neither model nor tokenizer says how long its inputs may be: what the relative positions of T5 were trained on.
UNKNOWN_LIMIT = 512
# The memory of attention grows with the square of the window, whatever longer ones a model would take.
WINDOW = 8192
# Of a window, shared with the next: enough context for the tokens at its edge, for a quarter more work.
OVERLAP_SHARE = 4
MAX_OVERLAP = 128

# Of the model's vocabulary, that its tokenizer must have: where its files are missing, transformers makes one that
# knows a handful of special tokens, and models have some hundred rows to spare.
MIN_VOCABULARY = 0.5

POSITION_TABLES = ("position_embeddings", "position_embedding", "wpe", "embed_positions")


class TextBackbone(Backbone):
    """A text model of transformers with its tokenizer.

    Args:
        model: the text encoder alone.
        family: where its blocks are.
        tokenizer: of the checkpoint.
        max_length: the most tokens of an input by the checkpoint's own settings, special ones included, or None.

    Attributes:
        limit: the most tokens that it was made for, special ones included.
        num_classes: tokens that the model knows.

    Raises:
        ModelError: if the tokenizer is of another model.
    """

    def __init__(self, model: Any, family: TextFamily, tokenizer: TextTokenizer, max_length: int | None = None) -> None:
        # Some poolers are not in the checkpoint, and nothing here runs them.
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        model.config.use_cache = False
        blocks, norm = find_blocks(model, family)
        positions = num_positions(model)
        super().__init__(
            model,
            blocks,
            FrameGrid(1, (Stage(1, 1, len(tokenizer.prefix), len(tokenizer.suffix)),)),
            final_norm=norm,
            max_samples=positions and positions - tokenizer.num_special,
            causal=family.causal,
            input_stages=0,
        )
        if any(getattr(model.config, name, None) for name in ("sliding_window", "local_attention")):
            attend_somewhere(blocks, self.padding)
        self.tokenizer = tokenizer
        self.num_classes = int(model.config.vocab_size)
        if tokenizer.num_classes < MIN_VOCABULARY * self.num_classes:
            raise ModelError(
                f"the tokenizer has {tokenizer.num_classes} tokens where the model has {self.num_classes}: files of it "
                "are missing; save it beside the weights with save_pretrained"
            )
        own = positions or getattr(model.config, "max_position_embeddings", None)
        known = [own, tokenizer.max_length, max_length]
        self.limit = min([length for length in known if length] or [UNKNOWN_LIMIT])

    def definition(self) -> dict[str, object]:
        """Architecture and tokenizer."""
        return {"model_type": self.module.config.model_type, "tokenizer": self.tokenizer.digest()}

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Tokens of a text or of a window of it, with the special ones around them."""
        return self.tokenizer.surround(samples)

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock model with its mask."""
        del sizes
        return self.module(input_ids=inputs, attention_mask=self.mask(inputs))


def num_positions(model: nn.Module) -> int | None:
    """Inputs that a model's table of positions is made for; None where positions are relative."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            # RoBERTa and its kin count from behind the number of the padding.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


class TextEncoder(BaseEncoder):
    """An encoder of texts.

    Made by `load_text_encoder`; its attributes are those of `BaseEncoder`.
    """

    backbone: TextBackbone

    # In tokens. Sentences are too short to fill a processor alone; the states of twice as many tokens leave the cache
    # of a core.
    cpu_batch_seconds = 1024.0
    gpu_batch_seconds = 131072.0
    probe_seconds = 256.0
    pads_on_cpu = True

    @property
    def tokenizer(self) -> TextTokenizer:
        """Of the checkpoint."""
        return self.backbone.tokenizer

    def encode(self, texts: Sequence[str], **options: object) -> list[Frames]:
        """States of the tokens of texts, in their order; the same alone and in any company.

        Args:
            texts: to encode.
            options: `window`, `overlap`, `truncate`, `batch_tokens` (see `texts.TextOptions`).

        Returns:
            `.values` `[T, D]`, or `[L, T, D]` if several layers were asked for, float32; `.tokens` and `.offsets` of
            the T tokens, special ones included.

        Raises:
            TextError: for the first text that cannot be encoded.
        """
        return encode_strings(self, texts, TextOptions(**options))  # type: ignore[arg-type]

    def embed(
        self, texts: Sequence[str], pool: str = "mean", *, keep_special: bool = False, **options: object
    ) -> np.ndarray:
        """One vector a text: `[n, D']`, or `[n, L, D']` if several layers were asked for, float32.

        Args:
            texts: to encode.
            pool: "mean", "std", "mean+std", "max", "first" or "last", over the tokens of the text itself; "cls", the
                special token that begins it; "last_token", the last of all.
            keep_special: let the poolings over the text's own tokens see the special ones too.
            options: as in `encode`.
        """
        return embed_strings(self, texts, pool, keep_special, TextOptions(**options))  # type: ignore[arg-type]

    def windows(self, window: int | None = None, overlap: int | None = None) -> Chunking:
        """How texts are cut, in tokens without special ones.

        Args:
            window: tokens that are encoded together, special ones included; None for as many as model and tokenizer
                were made for, 8192 at most.
            overlap: tokens that neighbouring windows share; None for a quarter of the window, 128 at most.

        Raises:
            ParameterError: if the model takes no such window, or it holds no token beyond its overlap.
        """
        special = self.tokenizer.num_special
        longest = self.backbone.max_samples
        length = min(self.backbone.limit, WINDOW) if window is None else window
        if longest is not None and length - special > longest:
            raise ParameterError(f"window={length} is above the {longest + special} positions of {self.name}")
        inner = length - special
        # The special tokens of a window inside a text are cut off with the overlap.
        least = 2 * max(len(self.tokenizer.prefix), len(self.tokenizer.suffix))
        shared = max(least, min(inner // OVERLAP_SHARE, MAX_OVERLAP)) if overlap is None else overlap
        if not least <= shared < inner - 1:
            raise ParameterError(
                f"overlap={shared} must be in [{least}, {inner - 1}) tokens for window={length}, "
                f"of which {special} are special"
            )
        return Chunking(inner, shared, inner)

    def prepare_texts(
        self, texts: Sequence[str], chunking: Chunking, *, truncate: bool = False
    ) -> list[Tokens | TextError]:
        """Tokens of each text, or why it cannot be encoded.

        Args:
            texts: to encode.
            chunking: from `windows`.
            truncate: keep the first window of a longer text, and flag it.
        """
        limit = int(chunking.length) if truncate else None
        return [self._checked(one, limit) for one in self.tokenizer.tokenize(texts)]

    def _checked(self, tokens: Tokens | TextError, limit: int | None) -> Tokens | TextError:
        if isinstance(tokens, TextError):
            return tokens
        last = int(tokens.samples.max())
        if last >= self.backbone.num_classes:
            return TextError(f"the model has no token {last}, which the tokenizer finds in the text")
        if limit is None or len(tokens.samples) <= limit:
            return tokens
        return Tokens(tokens.samples[:limit], tokens.offsets[:limit], (*tokens.flags, "truncated"))

    def pools_special(self, pool: str, keep_special: bool) -> bool:
        """Whether a pooling sees the special tokens.

        Raises:
            ParameterError: for "cls" with a tokenizer that puts nothing before a text.
        """
        if pool == "cls" and not len(self.tokenizer.prefix):
            raise ParameterError(
                f"pool='cls' needs a special token before the text, and the tokenizer of {self.name} puts none there; "
                "use 'mean' or 'last_token'"
            )
        return keep_special or pool in ("cls", "last_token")

    def describe(self) -> dict[str, object]:
        """What decides the features, for a store's configuration; the name of a model does not."""
        return {**super().describe(), "special_tokens": [len(self.tokenizer.prefix), len(self.tokenizer.suffix)]}

    def out_of_memory(self, num_samples: int) -> InputError:
        """The error of a text that does not fit into the memory even by itself."""
        return TextError(
            f"{num_samples} tokens do not fit into the memory of {self.device}; cut long texts into shorter windows "
            "(--window) or use --dtype bfloat16"
        )

    def _probe(self, seconds: float) -> np.ndarray:
        count = int(min(max(seconds, 1), self.backbone.limit - self.tokenizer.num_special))
        return np.random.default_rng(0).integers(self.backbone.num_classes, size=count)
