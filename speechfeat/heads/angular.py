"""Speaker embeddings: heads trained so that the cosine tells whether two utterances are of one speaker.

    head = train_angular_head(store, "speaker", "xvector")
    vectors = head.embed(other_store)

The vectors have length 1, so that their products are cosines.
"""

import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.losses import ArcFaceLoss
from torch import Tensor
from torch.nn import functional as F

from speechfeat.errors import ParameterError
from speechfeat.heads.batches import FrameBatch, FrameBatches
from speechfeat.heads.examples import Column, Examples
from speechfeat.heads.fitting import FrameConfig
from speechfeat.heads.framed import configure, with_rates
from speechfeat.heads.material import gather
from speechfeat.heads.modules import CosineClassifier
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.networks import FrameNetwork
from speechfeat.heads.objectives import Validation
from speechfeat.heads.trials import Checkpoint, Trials, train_best
from speechfeat.layers import Layers
from speechfeat.metrics import equal_error_rate
from speechfeat.probing import verify_layers
from speechfeat.splits import Fold
from speechfeat.store import Store

# Of an embedding, which is a sequence of a single frame, nothing else can be told over time.
EMBEDDING_KINDS = ("linear", "mlp-frames")
# All pairs of so many utterances: half a million trials an epoch.
MOST_VALIDATED = 1000


class AngularMargin:
    """The additive angular margin loss (ArcFace; Deng et al., CVPR 2019), as pytorch-metric-learning has it.

    The angle to the own class counts for `margin` more than it is, so that classes are pressed apart. Validated by the
    equal error rate of all pairs of utterances, by their cosine.

    Args:
        speakers: `[n]`, number of the speaker of each utterance; those who are trained on have the first numbers.
        num_speakers: trained on.
        embedding_dim: E.
        margin: in radians.
        scale: of the cosines.
    """

    metric = "eer"

    def __init__(
        self, speakers: np.ndarray, num_speakers: int, embedding_dim: int, *, margin: float, scale: float
    ) -> None:
        self.speakers = speakers
        # The library takes degrees.
        self._criterion = ArcFaceLoss(num_speakers, embedding_dim, margin=math.degrees(margin), scale=scale)

    def loss(self, network: FrameNetwork, batch: FrameBatch) -> Tensor:
        """Of a batch."""
        assert isinstance(network.classifier, CosineClassifier)
        self._criterion.W = network.classifier.weight
        embeddings = network.embed(batch.frames, batch.lengths)
        return self._criterion(embeddings, torch.from_numpy(self.speakers[batch.rows]).to(embeddings.device))

    def validate(self, network: FrameNetwork, batches: FrameBatches, device: torch.device) -> Validation:
        """The equal error rate over all of the batches."""
        parts = [(network.embed(*batch.to(device)[:2]), batch.rows) for batch in batches.once()]
        vectors, rows = torch.cat([part for part, _ in parts]), np.concatenate([part for _, part in parts])
        cosines = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T
        one, other = np.triu_indices(len(rows), k=1)
        same = self.speakers[rows[one]] == self.speakers[rows[other]]
        scores = cosines.cpu().numpy()[one, other]
        rate = equal_error_rate(scores, same) if np.isfinite(scores).all() else math.nan
        return Validation(rate, (-rate,))

    def probe(self, pooled: np.ndarray, rows: np.ndarray, num_train: int) -> list[float]:
        """By the cosine of the speakers kept apart; nothing is learnt from the others."""
        return [-one.score for one in verify_layers(pooled[num_train:], self.speakers[rows[num_train:]], num=20)]


def train_angular_head(
    store: Store,
    speakers: Column,
    kind: str = "stats",
    *,
    ids: Sequence[str] | None = None,
    layers: Layers | None = None,
    config: FrameConfig | None = None,
    rates: Sequence[float] = (),
    margin: float = 0.2,
    scale: float = 30.0,
    embeddings: bool = False,
    validation: Sequence[str] | None = None,
    task: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    stop: threading.Event | None = None,
    **options: Any,
) -> FrameHead:
    """Train speaker embeddings with an additive angular margin (AAM-softmax), for verification.

    A share of the speakers is kept apart whole, and the epoch with the lowest equal error rate on them is kept: what is
    wanted is a space that holds for speakers never heard. `FrameHead.embed` gives the vectors; the classes of the head
    are the speakers trained on.

    Args:
        store: with frames, or with embeddings.
        speakers: a column of its table, or a name for each of the utterances.
        kind: one of `FRAME_KINDS`; "linear" or "mlp-frames" for embeddings.
        ids: of the utterances; None for all.
        layers: that are mixed; None for all that the store has.
        config: how it is made and trained.
        rates: learning rates to try instead of the one of `config`.
        margin: in radians; 0.2 is ECAPA-TDNN's.
        scale: of the cosines.
        embeddings: take the utterances' embeddings in the store instead of their frames: a projection of them is
            trained.
        validation: ids to validate on; None keeps a share of the speakers apart.
        task: name of the label; None for that of the column.
        checkpoint: directory to save the head in whenever it is the best so far, and at the end.
        overwrite: replace a head that is there.
        stop: set it to end with the best head so far. Without it, Ctrl-C does.
        options: fields of `FrameConfig` that replace those of `config`.

    Raises:
        ParameterError: if an argument is not allowed, or there are too few speakers.
        StoreError: if an id is not in the store, or the disk refuses.
        KeyboardInterrupt: if it is stopped before the first epoch is over.
    """
    chosen = configure(config, options)
    if not 0 <= margin < math.pi / 2 or not 0 < scale < math.inf:
        raise ParameterError(f"margin={margin} and scale={scale} must be from 0 to below pi / 2 (radians), and above 0")
    if chosen.class_weight is not None:
        raise ParameterError(
            f"class_weight={chosen.class_weight!r} does not go with an angular margin; give class_weight=None"
        )
    if embeddings and kind not in EMBEDDING_KINDS:
        raise ParameterError(f"kind={kind!r} looks at frames; for embeddings use {' or '.join(EMBEDDING_KINDS)}")
    saver = Checkpoint(checkpoint, overwrite)
    material = gather(
        store,
        speakers,
        kind,
        chosen,
        ids=ids,
        groups=None,
        layers=layers,
        validation=validation,
        task=task,
        frames=not embeddings,
        split=_by_speaker,
    )
    names = list(material.classes)
    labels = material.examples.labels
    numbers = {name: number for number, name in enumerate([*names, *sorted(set(labels).difference(names))])}
    objective = AngularMargin(
        np.array([numbers[label] for label in labels]),
        len(names),
        chosen.embedding_dim,
        margin=margin,
        scale=scale,
    )
    return train_best(Trials(material, objective, saver, scale=scale, stop=stop), with_rates(chosen, rates, material))


def _by_speaker(examples: Examples, config: FrameConfig) -> Fold:
    """Keep speakers apart, of those who have two utterances, at least two."""
    names, classes = examples.classes, examples.codes
    several = np.flatnonzero(np.bincount(classes) > 1)
    wanted = max(2, round(config.validation_share * len(names)))
    if len(several) < wanted or len(names) < wanted + 2:
        raise ParameterError(
            f"{len(names)} speakers, {len(several)} of them with two utterances or more, are too few to keep {wanted} "
            "apart for validation and train on two; give ids to validate on (validation), or train without "
            "(validation_share=0)"
        )
    rng = np.random.default_rng(config.seed)
    apart = np.isin(classes, rng.permutation(several)[:wanted])
    validated = rng.permutation(np.flatnonzero(apart))[:MOST_VALIDATED]
    return np.flatnonzero(~apart), np.sort(validated)
