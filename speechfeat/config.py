"""What to extract and how."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from speechfeat.chunking import Chunking
from speechfeat.errors import ParameterError
from speechfeat.pooling import POOLS, TEXT_POOLS, check_pool

if TYPE_CHECKING:
    from speechfeat.augmentation import Augmentation


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to extract and how, of whatever input.

    Attributes:
        pool: pooling of the embedding, or "none".
        frames: whether frames are stored.
        store_dtype: of stored frames, "float16" or "float32".
        batch_size: the most utterances in a batch, or None.
        num_threads: for an utterance on a CPU; None lets several run at a time, and measures in long runs.
        num_workers: threads that read and prepare; None chooses as many as keep up with the encoder, likewise.
        shard: "i/n", the i-th of n equal parts of the corpus, or None.
        max_errors: failed inputs that are borne; one more ends the run.
        overwrite: begin the store anew.
    """

    pools: ClassVar[tuple[str, ...]] = POOLS
    numbers: ClassVar[tuple[str, ...]] = ("batch_size", "num_threads", "num_workers")

    pool: str = "mean"
    frames: bool = True
    store_dtype: str = "float16"
    batch_size: int | None = None
    num_threads: int | None = None
    num_workers: int | None = None
    shard: str | None = None
    max_errors: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.pooling == "none" and not self.frames:
            raise ParameterError("pool='none' without frames would store nothing; choose a pooling or keep the frames")
        for name in self.numbers:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ParameterError(f"{name}={value} must be a number above 0")
        if self.max_errors is not None and self.max_errors < 0:
            raise ParameterError(f"max_errors={self.max_errors} must be at least 0")

    @property
    def pooling(self) -> str:
        """The pooling by its own name, or "none"."""
        return self.pool if self.pool == "none" else check_pool(self.pool, self.pools)

    @property
    def seconds_of_batch(self) -> float | None:
        """Padded input in a batch, in seconds of its frame grid; None chooses from the device and its free memory."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(RunConfig):
    """What to extract from recordings and how, apart from the encoder.

    Attributes:
        channel: "mean", "all", or the number of a channel.
        chunking: how long recordings are cut.
        batch_seconds: of padded audio in a batch; None chooses from the device and its free memory.
        augmentation: of copies of utterances, see `copies_of`.
    """

    numbers = ("batch_seconds", *RunConfig.numbers)

    channel: str | int = "mean"
    chunking: Chunking = field(default_factory=Chunking)
    batch_seconds: float | None = None
    augmentation: "Augmentation | None" = None

    @property
    def seconds_of_batch(self) -> float | None:
        """As `batch_seconds`."""
        return self.batch_seconds


@dataclass(frozen=True, kw_only=True)
class TextConfig(RunConfig):
    """What to extract from texts and how, apart from the encoder.

    Attributes:
        window: tokens that are encoded together, special ones included; None for what the model was made for.
        overlap: tokens that neighbouring windows of a longer text share; None chooses.
        truncate: keep the first window of a longer text instead.
        keep_special: let the pooling see the special tokens.
        batch_tokens: padded tokens in a batch; None chooses from the device.
    """

    pools = TEXT_POOLS
    numbers = ("batch_tokens", "window", *RunConfig.numbers)

    window: int | None = None
    overlap: int | None = None
    truncate: bool = False
    keep_special: bool = False
    batch_tokens: float | None = None

    @property
    def seconds_of_batch(self) -> float | None:
        """As `batch_tokens`: a text's grid has a token a second."""
        return self.batch_tokens
