"""An encoder with heads that can be trained as a whole, by the path that extraction takes.

    model = TransferModel.load("conformer-s", {"emotion": new_head("logistic", 4)}, layers=5)
    logits = model(batch)["emotion"]

Its parts, which a regime names: "head", "adapters" (of LoRA), the blocks by their number from 1, and 0, all that is
before the first block.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import load_encoder
from speechfeat.errors import ParameterError
from speechfeat.heads.modules import valid_frames
from speechfeat.heads.networks import KINDS, FrameNetwork
from speechfeat.layers import Layers
from speechfeat.pooling import check_pool, pooled_dim
from speechfeat.types import Batch

HEAD, ADAPTERS, FRONT, UNUSED = "head", "adapters", 0, "unused"
POOLS = ("mean", "std", "mean+std", "max")
LOGISTIC = "logistic"
# What peft calls the weights that it adds.
ADAPTER_WEIGHTS = ".lora_"

Part = str | int
# From the number of layers L and the dimension D of the states.
MakeHead = Callable[[int, int], nn.Module]


class PooledClassifier(nn.Module):
    """Logistic regression on pooled layers, side by side and standardised: a head of the kind "logistic".

    Args:
        num_layers: L.
        dim: D.
        num_classes: C.
        pool: one of `POOLS`.
        dropout: of the pooled vector, in training.

    Shape:
        frames `[B, L, T, D]`, lengths `[B]`, each at least 1 -> `[B, C]`
    """

    def __init__(self, num_layers: int, dim: int, num_classes: int, pool: str = "mean+std", dropout: float = 0.0):
        super().__init__()
        self.pool = check_pool(pool, POOLS)
        width = num_layers * pooled_dim(self.pool, dim)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.mean: Tensor
        self.scale: Tensor
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """What is classified: the pooled layers as a store has them, `[B, L * D']`."""
        return pool_padded(frames, lengths, self.pool).flatten(1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """A number for each class."""
        return self.linear(self.dropout((self.embed(frames, lengths) - self.mean) / self.scale))


def pool_padded(frames: Tensor, lengths: Tensor, pool: str) -> Tensor:
    """What `pooling.Pooler` gives for each utterance, with gradients.

    Shape:
        frames `[B, L, T, D]`, lengths `[B]`, each at least 1 -> `[B, L, D']`
    """
    frames = frames.float()
    valid = valid_frames(lengths, frames.shape[2])[:, None, :, None]
    if pool == "max":
        return frames.masked_fill(~valid, -torch.inf).amax(dim=2)
    counts = lengths[:, None, None]
    mean = frames.masked_fill(~valid, 0.0).sum(dim=2) / counts
    if pool == "mean":
        return mean
    variance = (frames - mean[:, :, None]).masked_fill(~valid, 0.0).square().sum(dim=2) / counts
    # The root of what does not vary has no finite gradient.
    varies = variance > 0
    deviation = torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)
    return deviation if pool == "std" else torch.cat([mean, deviation], dim=-1)


def new_head(kind: str, num_classes: int, *, pool: str = "mean+std", dropout: float = 0.0, **options: Any) -> MakeHead:
    """What makes a head once the encoder's layers are known.

    Args:
        kind: "logistic" on pooled layers, or one of `FRAME_KINDS` on frames.
        num_classes: C.
        pool: of a logistic head.
        dropout: probability.
        options: of a `FrameNetwork`.

    Raises:
        ParameterError: if the kind or the pooling is not known.
    """
    if kind == LOGISTIC:
        pooling = check_pool(pool, POOLS)
        return lambda num_layers, dim: PooledClassifier(num_layers, dim, num_classes, pooling, dropout)
    if kind not in KINDS:
        raise ParameterError(f"kind={kind!r} is no head to fine-tune with; use {', '.join((LOGISTIC, *KINDS))}")
    # A head of its own scale: statistics of features that are about to change would be of the past.
    given = {"normalize": "layer", "dropout": dropout, **options}
    return lambda num_layers, dim: FrameNetwork(kind, num_layers, dim, num_classes, **given)


class TransferModel(nn.Module):
    """An encoder and the heads on its layers.

    In training the encoder as a whole stays in eval mode, and only the blocks that learn are put into train mode: their
    dropout works, layerdrop and the masking of old pretraining do not, and batch norms keep their statistics.

    Args:
        encoder: in float32, for this model alone; its weights are trained in place.
        heads: what makes the head of each task.
        options: of `load_encoder`, that it was loaded with.
    """

    def __init__(
        self, encoder: Encoder, heads: Mapping[str, MakeHead], options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if encoder.dtype != "float32":
            raise ParameterError(f"an encoder in {encoder.dtype} cannot be trained; load it with dtype='float32'")
        self.encoder, self.options = encoder, dict(options or {})
        self.backbone: nn.Module = encoder.backbone.module
        num_layers = len(encoder.selection.indices)
        self.heads = nn.ModuleDict({task: make(num_layers, encoder.dim) for task, make in heads.items()})
        self.heads.to(encoder.device)

    @classmethod
    def load(
        cls,
        source: str,
        heads: Mapping[str, MakeHead],
        layers: Layers = "penultimate",
        *,
        device: str | torch.device = "auto",
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Open an encoder to be trained, with new heads.

        Args:
            source: as for `load_encoder`.
            heads: what makes the head of each task, see `new_head`.
            layers: that the heads take; blocks above the deepest do not run and do not change.
            device: torch device, or "auto".
            seed: of the weights of the heads.
            options: further ones of `load_encoder`.

        Raises:
            ModelError: if the source cannot serve as an encoder.
            ParameterError: for a layer or device that is not there.
        """
        encoder = load_encoder(source, layers, device=device, dtype="float32", **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(encoder, heads, options)

    @property
    def device(self) -> torch.device:
        """That it runs on."""
        return self.encoder.device

    @property
    def depth(self) -> int:
        """The number of the deepest block that runs."""
        return self.encoder.selection.deepest

    def states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Layers `[B, L, T, D]` of the encoder and valid frames of each utterance `[B]`."""
        hidden = self.encoder.states(batch)
        return hidden.states, torch.tensor(hidden.num_frames, device=self.device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """What every head makes of a batch, by task, `[B, C]`."""
        states, lengths = self.states(batch)
        return {task: head(states, lengths) for task, head in self.heads.items()}

    def parts(self) -> dict[Part, list[tuple[str, nn.Parameter]]]:
        """The weights that can be trained, with their names, each in one part."""
        blocks = self.encoder.backbone.blocks
        owners: dict[int, Part] = {}
        for number in range(self.depth, 0, -1):
            owners |= {id(value): number for value in blocks[number - 1].parameters()}
        final = self.encoder.backbone.final_norm
        if final is not None:
            # It follows the last block, and does not run before it.
            last = self.depth if self.depth == self.encoder.num_layers else UNUSED
            owners |= {id(value): last for value in final.parameters()}
        parts: dict[Part, list[tuple[str, nn.Parameter]]] = {}
        for name, value in self.named_parameters():
            if name.startswith("heads."):
                part: Part = HEAD
            else:
                part = ADAPTERS if ADAPTER_WEIGHTS in name else owners.get(id(value), FRONT)
            parts.setdefault(part, []).append((name, value))
        parts.pop(UNUSED, None)
        return parts

    def train_parts(self, chosen: Collection[Part], *, norm_statistics: bool = False) -> None:
        """Let some parts learn, and no others.

        Args:
            chosen: the parts.
            norm_statistics: whether the batch norms of blocks that learn take the statistics of the batches, padding
                included, rather than keep their own.
        """
        self.eval().requires_grad_(False)
        for part, weights in self.parts().items():
            for _, value in weights:
                value.requires_grad_(part in chosen)
        self.heads.train(HEAD in chosen)
        blocks = self.encoder.backbone.blocks
        for number in range(1, self.depth + 1):
            blocks[number - 1].train(number in chosen or ADAPTERS in chosen)
        if not norm_statistics:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
