"""An encoder with heads that can be trained as a whole, by the path that extraction takes.

    model = TransferModel.load("conformer-s", {"emotion": new_head(4)}, layers=5)
    logits = model(batch)["emotion"]

Its parts, which a regime names: "head", "adapters" (of LoRA), the blocks by their number from 1, and 0, all that is
before the first block.
"""

import os
from collections.abc import Collection, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import is_checkpoint, load_encoder
from speechfeat.errors import ModelError, ParameterError
from speechfeat.layers import Layers
from speechfeat.transfer.heads import HeadShape
from speechfeat.types import Batch

HEAD, ADAPTERS, FRONT, UNUSED = "head", "adapters", 0, "unused"
# What peft calls the weights that it adds.
ADAPTER_WEIGHTS = ".lora_"

Part = str | int


class TransferModel(nn.Module):
    """An encoder and the heads on its layers.

    In training the encoder as a whole stays in eval mode, and only the blocks that learn are put into train mode: their
    dropout works, layerdrop and the masking of old pretraining do not, and batch norms keep their statistics.

    Args:
        encoder: in float32, for this model alone; its weights are trained in place.
        heads: the shape of the head of each task.
        options: of `load_encoder`, that it was loaded with.

    Raises:
        ParameterError: if the encoder is not in float32, or a task cannot be the name of a head.
    """

    def __init__(
        self, encoder: Encoder, heads: Mapping[str, HeadShape], options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if encoder.dtype != "float32":
            raise ParameterError(f"an encoder in {encoder.dtype} cannot be trained; load it with dtype='float32'")
        if bad := [task for task in heads if not task or "." in task]:
            raise ParameterError(f"a task cannot be called {bad[0]!r}; give a name without a dot")
        self.encoder, self.shapes, self.options = encoder, dict(heads), dict(options or {})
        self.backbone: nn.Module = encoder.backbone.module
        num_layers = len(encoder.selection.indices)
        self.heads = nn.ModuleDict({task: shape.make(num_layers, encoder.dim) for task, shape in heads.items()})
        self.heads.to(encoder.device)

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        heads: Mapping[str, HeadShape],
        layers: Layers = "penultimate",
        *,
        device: str | torch.device = "auto",
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Open an encoder to be trained, with new heads.

        Args:
            source: a name of the catalogue, a hub id or a checkpoint directory of transformers.
            heads: the shape of the head of each task, see `new_head`.
            layers: that the heads take; blocks above the deepest do not run and do not change.
            device: torch device, or "auto".
            seed: of the weights of the heads.
            options: further ones of `load_encoder`.

        Raises:
            ModelError: if the source cannot serve as an encoder, or could not be saved once it is trained.
            ParameterError: for a layer or device that is not there.
        """
        if not is_checkpoint(os.fspath(source)):
            raise ModelError(
                f"{source!r} cannot be trained here, for it could not be saved as a checkpoint; give a checkpoint "
                "directory or hub id of transformers, or a name of the catalogue that stands for one"
            )
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
