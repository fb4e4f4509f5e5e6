"""Which parts of a model learn in which epoch, and how fast: the rungs of the ladder.

    Gradual(rate=1e-4).rates(depth=8, epoch=2)   # {"head": 1e-3, 8: 1e-4, 7: 3.8e-5}

A regime is asked for rates alone; the loop knows no regimes. The parts are those of `TransferModel`.
"""

import math
from dataclasses import dataclass, fields
from typing import Protocol

from speechfeat.errors import ParameterError
from speechfeat.transfer.model import ADAPTERS, FRONT, HEAD, Part, TransferModel

# Howard & Ruder (2018): the rate of a block is that of the block above it over 2.6.
DECAY = 2.6

Rates = dict[Part, float]


class Regime(Protocol):
    """A rung."""

    def prepare(self, model: TransferModel) -> None:
        """Change the model before anything is trained, as adapters do."""

    def rates(self, depth: int, epoch: int) -> Rates:
        """The highest learning rate of each part that learns in an epoch.

        Args:
            depth: the number of the deepest block.
            epoch: from 0.
        """


@dataclass(frozen=True)
class _Plain:
    """What most rungs share: the model stays as it is, and the fields are checked."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("rate") and not 0 < value < math.inf:
                raise ParameterError(f"{field.name}={value} must be above 0")
            if field.name.endswith("epochs") and value < 0:
                raise ParameterError(f"{field.name}={value} must be at least 0")
            if field.name in ("k", "rank", "alpha") and value < 1:
                raise ParameterError(f"{field.name}={value} must be at least 1")
            if field.name == "decay" and not value >= 1:
                raise ParameterError(f"decay={value} must be at least 1: what a rate is divided by from block to block")

    def prepare(self, model: TransferModel) -> None:
        """Leave it as it is."""


@dataclass(frozen=True)
class Frozen(_Plain):
    """The head alone.

    Attributes:
        head_rate: of the head.
    """

    head_rate: float = 1e-3

    def rates(self, depth: int, epoch: int) -> Rates:
        """The head's."""
        del depth, epoch
        return {HEAD: self.head_rate}


@dataclass(frozen=True)
class TopBlocks(_Plain):
    """The head alone first, then the top blocks and the head together at a small rate.

    Attributes:
        k: blocks, at most all.
        rate: of the blocks and, with them, of the head.
        head_rate: of the head alone.
        head_epochs: in which it is alone; 0 where the head is fitted beforehand.
    """

    k: int = 2
    rate: float = 1e-4
    head_rate: float = 1e-3
    head_epochs: int = 2

    def rates(self, depth: int, epoch: int) -> Rates:
        """The head's, or the same for all."""
        if epoch < self.head_epochs:
            return {HEAD: self.head_rate}
        blocks = range(depth, max(0, depth - self.k), -1)
        return {HEAD: self.rate, **dict.fromkeys(blocks, self.rate)}


@dataclass(frozen=True)
class Gradual(_Plain):
    """A block more in every epoch, from the top, the rates smaller from block to block (ULMFiT; Howard & Ruder, 2018).

    Attributes:
        rate: of the top block.
        decay: what the rate of the next block below is divided by.
        head_rate: of the head.
        head_epochs: in which the head is alone; 0 where it is fitted beforehand.
        most: blocks that are unfrozen at last; None for all.
    """

    rate: float = 1e-4
    decay: float = DECAY
    head_rate: float = 1e-3
    head_epochs: int = 1
    most: int | None = None

    def rates(self, depth: int, epoch: int) -> Rates:
        """The head's, and those of the blocks that are unfrozen by now."""
        unfrozen = max(0, min(epoch + 1 - self.head_epochs, depth if self.most is None else min(self.most, depth)))
        return {HEAD: self.head_rate, **_falling(self.rate, self.decay, depth, unfrozen)}


@dataclass(frozen=True)
class Full(_Plain):
    """All blocks at once.

    Attributes:
        rate: of the blocks.
        decay: what the rate of the next block below is divided by; 1 is one rate for all.
        head_rate: of the head.
        head_epochs: in which the head is alone.
        front: whether what is before the first block, such as convolutions, learns too, at the rate of that block.
    """

    rate: float = 1e-4
    decay: float = 1.0
    head_rate: float = 1e-3
    head_epochs: int = 0
    front: bool = False

    def rates(self, depth: int, epoch: int) -> Rates:
        """Of all parts."""
        if epoch < self.head_epochs:
            return {HEAD: self.head_rate}
        blocks = _falling(self.rate, self.decay, depth, depth)
        front: Rates = {FRONT: min(blocks.values(), default=self.rate)} if self.front else {}
        return {HEAD: self.head_rate, **blocks, **front}


@dataclass(frozen=True)
class LoRA(_Plain):
    """Low-rank adapters beside every linear layer of the blocks, which stay as they are (Hu et al., 2022).

    They are merged into the layers when the encoder is saved.

    Attributes:
        rank: of the adapters.
        alpha: what they give is multiplied by alpha / rank.
        rate: of the adapters.
        head_rate: of the head.
        head_epochs: in which the head is alone.
    """

    rank: int = 8
    alpha: int = 16
    rate: float = 1e-3
    head_rate: float = 1e-3
    head_epochs: int = 0

    def prepare(self, model: TransferModel) -> None:
        """Add the adapters.

        Raises:
            ModelError: if peft is not installed, or the blocks have no linear layer.
        """
        # Of an optional library, which the other rungs do without.
        from speechfeat.transfer.adapters import add_adapters

        add_adapters(model, self.rank, self.alpha)

    def rates(self, depth: int, epoch: int) -> Rates:
        """Of the head and the adapters."""
        del depth
        adapters: Rates = {} if epoch < self.head_epochs else {ADAPTERS: self.rate}
        return {HEAD: self.head_rate, **adapters}


def _falling(rate: float, decay: float, depth: int, count: int) -> Rates:
    """Of `count` blocks from the top."""
    return {depth - place: rate / decay**place for place in range(count)}
