"""How good a student is on the speakers kept out of its training."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from speechfeat.distillation.batches import Batches, DistillBatch
from speechfeat.distillation.model import Student, statistics
from speechfeat.probing import LayerScore, verify_layers
from speechfeat.transcripts import Alphabet, error_rate
from speechfeat.types import Utterance

# Of a speaker with 50 utterances there are as many pairs as of 100 with five; and pairs grow with the square.
MOST_OF_A_SPEAKER = 5
MOST_VERIFIED = 3000


@dataclass(frozen=True)
class DistillReport:
    """Figures on clean utterances of speakers kept out.

    Attributes:
        cosine: to the teacher's standardised frames, by block of the student.
        speaker_cosine: to the speaker vectors, by block.
        error_rates: of characters, decoded greedily, by the label `lang`; empty without transcripts.
        equal_error_rates: of verification by mean and deviation over time (see `verify_layers`; at most five
            utterances of a speaker), by block; None where no speaker has two.
        num_utterances: that were looked at.
        num_transcripts: of them, by the label `lang`.
    """

    cosine: dict[int, float]
    speaker_cosine: dict[int, float]
    error_rates: dict[str, float]
    equal_error_rates: dict[int, LayerScore] | None
    num_utterances: int
    num_transcripts: dict[str, int]


class _Findings:
    """What is gathered over the batches."""

    def __init__(self) -> None:
        self.cosine: dict[int, list[Tensor]] = defaultdict(list)
        self.speaker_cosine: dict[int, list[Tensor]] = defaultdict(list)
        self.embeddings: dict[int, list[Tensor]] = defaultdict(list)
        self.speakers: list[str] = []
        self.references: dict[str, list[str]] = defaultdict(list)
        self.hypotheses: dict[str, list[str]] = defaultdict(list)


@torch.no_grad()
def evaluate(
    student: Student,
    batches: Batches,
    utterances: Sequence[Utterance],
    alphabet: Alphabet | None,
    device: torch.device | str = "cpu",
) -> DistillReport:
    """Look at every utterance of an epoch of `batches` once.

    Args:
        student: looked at in evaluation mode, and left in the mode it had.
        batches: clean and whole.
        utterances: what the items are; their labels `speaker` and `lang` are used.
        alphabet: of the transcripts; None for none.
        device: of the student.
    """
    was_training = student.training
    student.eval()
    found = _Findings()
    for step in range(batches.steps_per_epoch()):
        batch = batches.make(step).to(device)
        labels = [utterances[example.item].labels for example in batches.examples(step)]
        found.speakers += [label.get("speaker", "") for label in labels]
        _look_at(student, batch, found)
        if alphabet is not None:
            _read(student, batch, alphabet, [label.get("lang", "") for label in labels], found)
    student.train(was_training)
    return DistillReport(
        {block: torch.cat(values).mean().item() for block, values in found.cosine.items()},
        {block: torch.cat(values).mean().item() for block, values in found.speaker_cosine.items()},
        {lang: error_rate(found.references[lang], found.hypotheses[lang]) for lang in sorted(found.references)},
        _verify(found),
        len(found.speakers),
        {lang: len(found.references[lang]) for lang in sorted(found.references)},
    )


def _look_at(student: Student, batch: DistillBatch, found: _Findings) -> None:
    states = student.states(batch.inputs, batch.sizes)
    valid = student.valid(batch)
    for block, state in states.items():
        found.embeddings[block].append(statistics(state, valid).cpu())
    for name, head in student.speaker_heads.items():
        if batch.vectors is not None and batch.has_vector.any():
            vector = head(statistics(states[int(name)], valid))
            cosine = functional.cosine_similarity(vector, batch.vectors)[batch.has_vector]
            found.speaker_cosine[int(name)].append(cosine.cpu())
    if batch.targets is not None:
        for block in student.tasks.taps:
            guess = student.frame_heads[str(block)](states[block])[valid]
            cosine = functional.cosine_similarity(guess, student.target(batch, block)[valid].float(), dim=-1)
            found.cosine[block].append(cosine.cpu())


def _read(
    student: Student, batch: DistillBatch, alphabet: Alphabet, languages: Sequence[str], found: _Findings
) -> None:
    classes = student.model.ctc_head(student.last).argmax(dim=-1).cpu()
    labels = batch.labels.cpu().split(batch.label_lengths.tolist())
    for row, (label, num_frames) in enumerate(zip(labels, batch.num_frames.tolist(), strict=True)):
        if len(label):
            found.references[languages[row]].append(alphabet.spell(label.tolist()))
            found.hypotheses[languages[row]].append(alphabet.decode(classes[row, :num_frames].tolist()))


def _verify(found: _Findings) -> dict[int, LayerScore] | None:
    speakers = pd.Series(found.speakers)
    rows = np.flatnonzero(speakers != "")[:MOST_VERIFIED]
    if not speakers[rows].duplicated().any() or speakers[rows].nunique() < 2:
        return None
    embeddings = np.stack([torch.cat(parts)[rows].numpy() for parts in found.embeddings.values()], axis=1)
    scores = verify_layers(embeddings, speakers[rows], most=MOST_OF_A_SPEAKER)
    return dict(zip(found.embeddings, scores, strict=True))
