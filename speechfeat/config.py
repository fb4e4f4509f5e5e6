"""What to extract and how."""

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from speechfeat.chunking import Chunking
from speechfeat.errors import ParameterError
from speechfeat.pooling import check_pool

if TYPE_CHECKING:
    from speechfeat.augmentation import Augmentation


@dataclass(frozen=True)
class ExtractConfig:
    """What to extract and how, apart from the encoder.

    Attributes:
        pool: pooling of the embedding, or "none".
        frames: whether frames are stored.
        store_dtype: of stored frames, "float16" or "float32".
        channel: "mean", "all", or the number of a channel.
        chunking: how long recordings are cut.
        batch_seconds: of padded audio in a batch; None chooses from the device and its free memory.
        batch_size: the most utterances in a batch, or None.
        num_workers: threads that read and prepare.
        shard: "i/n", the i-th of n equal parts of the corpus, or None.
        max_errors: failed inputs that are borne; one more ends the run.
        overwrite: begin the store anew.
        augmentation: of copies of utterances, see `copies_of`.
    """

    pool: str = "mean"
    frames: bool = True
    store_dtype: str = "float16"
    channel: str | int = "mean"
    chunking: Chunking = field(default_factory=Chunking)
    batch_seconds: float | None = None
    batch_size: int | None = None
    num_workers: int = min(4, os.cpu_count() or 1)
    shard: str | None = None
    max_errors: int | None = None
    overwrite: bool = False
    augmentation: "Augmentation | None" = None

    def __post_init__(self) -> None:
        if self.pool != "none":
            check_pool(self.pool)
        elif not self.frames:
            raise ParameterError("pool='none' without frames would store nothing; choose a pooling or keep the frames")
        for name in ("batch_seconds", "batch_size", "num_workers"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ParameterError(f"{name}={value} must be a number above 0")
        if self.max_errors is not None and self.max_errors < 0:
            raise ParameterError(f"max_errors={self.max_errors} must be at least 0")
