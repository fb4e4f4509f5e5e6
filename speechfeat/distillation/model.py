"""The student and what it is asked for: the teacher's frames, the speaker, the words.

Sources: hidden states regressed through linear heads with L1 and cosine as in DistilHuBERT (Chang et al., 2022);
CTC (Graves et al., 2006).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ParakeetForCTC

from speechfeat.distillation.batches import DistillBatch
from speechfeat.errors import ParameterError

# Of the cosine term beside L1.
COSINE_WEIGHT = 0.5


@dataclass(frozen=True)
class Tasks:
    """What is learnt where.

    Attributes:
        taps: block of the student -> layer of the teacher.
        clean_taps: blocks of them that learn from utterances heard as they are alone. What is learnt from dirty speech
            no longer tells level and channel, which low layers of a teacher do.
        speaker_blocks: blocks whose mean and deviation over time give the speaker's vector.
        frame_weight: of the frame loss of every tap.
        pooled_weight: of the L1 distance between found and wanted frames' mean and deviation over time, of every tap:
            what stays the same in an utterance (voice, channel, mood) is a small part of the frames' variance, and
            most of what embeddings are used for.
        speaker_weight: of the speaker losses, averaged over their blocks. A batch has few speakers, and their gradient
            is several times that of the frames and mostly noise: at 1 beside a quarter of the frame weight, frames
            take five times as long to learn.
        ctc_weight: of the transcripts; the same holds.
    """

    taps: Mapping[int, int] = field(default_factory=dict)
    clean_taps: tuple[int, ...] = ()
    speaker_blocks: tuple[int, ...] = ()
    frame_weight: float = 1.0
    pooled_weight: float = 1.0
    speaker_weight: float = 0.15
    ctc_weight: float = 0.05

    @property
    def layers(self) -> list[int]:
        """The teacher's layers that are learnt, ascending: the order in which they are stored."""
        return sorted(set(self.taps.values()))

    def check(self, num_blocks: int) -> None:
        """Refuse blocks that a student of `num_blocks` does not have, and layers counted from the end.

        Raises:
            ParameterError: that names the block or layer.
        """
        for block in (*self.taps, *self.clean_taps, *self.speaker_blocks):
            if not 1 <= block <= num_blocks:
                raise ParameterError(f"the student has no block {block}; its blocks are 1 to {num_blocks}")
        if self.taps and self.layers[0] < 0:
            raise ParameterError(f"teacher layer {self.layers[0]} must be counted from 0, the input of its first block")


class Losses(NamedTuple):
    """Of one batch; None where there was nothing to learn from."""

    total: Tensor
    frames: dict[int, float]
    pooled: dict[int, float]
    speaker: float | None
    ctc: float | None


class Student(nn.Module):
    """A FastConformer-CTC with the heads that training needs and nobody ships.

    In training its batch norms see padded frames too, as zeros: keep the utterances of a batch of like length.

    Args:
        model: the student.
        tasks: what it learns.
        teacher_dim: D of the teacher's frames.
        vector_dim: of the speaker's vectors.

    Raises:
        ParameterError: if a block is named that the student does not have.
    """

    def __init__(self, model: ParakeetForCTC, tasks: Tasks, teacher_dim: int = 0, vector_dim: int = 0) -> None:
        super().__init__()
        blocks = model.encoder.layers
        tasks.check(len(blocks))
        self.model, self.tasks = model, tasks
        dim = model.config.encoder_config.hidden_size
        self.frame_heads = nn.ModuleDict({str(block): nn.Linear(dim, teacher_dim) for block in tasks.taps})
        self.speaker_heads = nn.ModuleDict(
            {str(block): nn.Linear(2 * dim, vector_dim) for block in tasks.speaker_blocks if vector_dim}
        )
        self._states: dict[int, Tensor] = {}
        for number, block in enumerate(blocks, 1):
            block.register_forward_hook(lambda _, __, output, number=number: self._states.update({number: output}))

    def states(self, inputs: Tensor, sizes: list[int]) -> dict[int, Tensor]:
        """What each block gives, `[B, T, D]`, by its number from 1."""
        mask = torch.arange(inputs.shape[1], device=inputs.device) < torch.tensor(sizes, device=inputs.device)[:, None]
        self._states.clear()
        self.model.encoder(inputs, attention_mask=mask)
        return dict(self._states)

    @property
    def last(self) -> Tensor:
        """What the last block gave, `[B, T, D]`."""
        return self._states[len(self.model.encoder.layers)]

    def valid(self, batch: DistillBatch) -> Tensor:
        """Which frames of the states just computed are no padding, `[B, T]`."""
        return torch.arange(self.last.shape[1], device=self.last.device) < batch.num_frames[:, None]

    def target(self, batch: DistillBatch, block: int) -> Tensor:
        """What the teacher has for a block, `[B, T, D]`."""
        assert batch.targets is not None
        return batch.targets[:, self.tasks.layers.index(self.tasks.taps[block])]

    def losses(self, batch: DistillBatch) -> Losses:
        """What the batch, on the student's device, teaches."""
        states = self.states(batch.inputs, batch.sizes)
        valid = self.valid(batch)
        frames, pooled = self._teacher_losses(states, batch, valid)
        speaker = self._speaker_loss(states, batch, valid)
        ctc = self._ctc_loss(batch)
        terms = [self.tasks.frame_weight * loss for loss in frames.values()]
        terms += [self.tasks.pooled_weight * loss for loss in pooled.values()]
        if speaker is not None:
            terms.append(self.tasks.speaker_weight * speaker)
        if ctc is not None:
            terms.append(self.tasks.ctc_weight * ctc)
        total = torch.stack(terms).sum() if terms else states[1].sum() * 0
        return Losses(
            total,
            {block: loss.item() for block, loss in frames.items()},
            {block: loss.item() for block, loss in pooled.items()},
            None if speaker is None else speaker.item(),
            None if ctc is None else ctc.item(),
        )

    def _teacher_losses(
        self, states: Mapping[int, Tensor], batch: DistillBatch, valid: Tensor
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Of the frames and of their mean and deviation, by block."""
        frames: dict[int, Tensor] = {}
        pooled: dict[int, Tensor] = {}
        if batch.targets is not None:
            for block in self.tasks.taps:
                rows = batch.is_clean if block in self.tasks.clean_taps else torch.ones_like(batch.is_clean)
                if not rows.any():
                    continue
                found = self.frame_heads[str(block)](states[block][rows])
                wanted, present = self.target(batch, block)[rows], valid[rows]
                frames[block] = frame_loss(found, wanted, present)
                pooled[block] = (statistics(found, present) - statistics(wanted, present)).abs().mean()
        return frames, pooled

    def _speaker_loss(self, states: Mapping[int, Tensor], batch: DistillBatch, valid: Tensor) -> Tensor | None:
        if batch.vectors is None or not self.speaker_heads or not batch.has_vector.any():
            return None
        wanted = batch.vectors[batch.has_vector]
        losses = []
        for block, head in self.speaker_heads.items():
            found = head(statistics(states[int(block)], valid)[batch.has_vector])
            losses.append(1 - functional.cosine_similarity(found.float(), wanted).mean())
        return torch.stack(losses).mean()

    def _ctc_loss(self, batch: DistillBatch) -> Tensor | None:
        rows = batch.label_lengths > 0
        if self.tasks.ctc_weight == 0 or not rows.any():
            return None
        scores = functional.log_softmax(self.model.ctc_head(self.last[rows]).float(), dim=-1).transpose(0, 1)
        return functional.ctc_loss(
            scores,
            batch.labels,
            batch.num_frames[rows],
            batch.label_lengths[rows],
            blank=self.model.config.pad_token_id,
            zero_infinity=True,
        )


def frame_loss(found: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    """L1 less half the log-sigmoid of the cosine, averaged over the valid frames.

    Shape:
        found, wanted `[B, T, D]`, valid `[B, T]` -> `[]`
    """
    found, wanted = found[valid].float(), wanted[valid].float()
    distance = (found - wanted).abs().mean()
    cosine = functional.cosine_similarity(found, wanted, dim=-1)
    return distance - COSINE_WEIGHT * functional.logsigmoid(cosine).mean()


def statistics(frames: Tensor, valid: Tensor) -> Tensor:
    """Mean and standard deviation over the valid frames, side by side.

    Shape:
        frames `[B, T, D]`, valid `[B, T]` -> `[B, 2 * D]`
    """
    weights = (valid / valid.sum(dim=1, keepdim=True))[..., None]
    frames = frames.float()
    mean = (frames * weights).sum(dim=1)
    variance = ((frames - mean[:, None]) ** 2 * weights).sum(dim=1)
    return torch.cat([mean, (variance + 1e-5).sqrt()], dim=-1)


def fold_scale(model: ParakeetForCTC, mean: float, deviation: float) -> None:
    """Make the first convolution of a new model see its input as if standardised, in place.

    A checkpoint whose log mel frames are not normalised keeps level and channel for its lower blocks; what random
    weights make of inputs far from zero is still a bad start.
    """
    first = model.encoder.subsampling.layers[0]
    with torch.no_grad():
        first.weight /= deviation
        first.bias -= first.weight.sum(dim=(1, 2, 3)) * mean
