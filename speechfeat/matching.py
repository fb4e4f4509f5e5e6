"""One space for speech and text: projections learnt by contrast, retrieval in both directions.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021: symmetric
InfoNCE with a learnt temperature. Pairs of the same text, which short words often are, do not count as wrong.

Example:
    matcher = sf.train_matcher(sf.Pairs(speech, text, words), sf.Pairs(*held_out))
    scores = matcher.speech(X) @ matcher.text(Y).T  # cosines
    sf.recall(sf.retrieval_ranks(scores, said, written), 10)
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from speechfeat.errors import ModelError, ParameterError
from speechfeat.store_config import disk_errors, publish, write_text

FORMAT = 1
MATCHER_JSON, TENSORS = "matcher.json", "matcher.safetensors"
# As in the paper: the scale that cosines are multiplied by begins at 1 / 0.07 and is at most 100.
FIRST_SCALE, MOST_SCALE = 1 / 0.07, 100.0


class Pairs(NamedTuple):
    """What is said, and what it is in writing.

    Attributes:
        speech: `[n, D]` embeddings.
        text: `[n, D']` embeddings.
        names: `[n]`, what is said: pairs of one name belong together, whoever said it.
    """

    speech: np.ndarray
    text: np.ndarray
    names: Sequence[str]


@dataclass(frozen=True)
class MatchConfig:
    """How projections are made and trained.

    Attributes:
        dim: of the common space.
        hidden: of the hidden layer of each projection.
        dropout: probability, of inputs and of hidden units.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        batch_size: pairs that are told apart in a step.
        epochs: the most.
        patience: epochs without a better rank on the validation pairs after which training ends.
        seed: of weights, batches and dropout.

    Raises:
        ParameterError: for a value out of range.
    """

    dim: int = 128
    hidden: int = 256
    dropout: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    batch_size: int = 512
    epochs: int = 20
    patience: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"dim": 1, "hidden": 1, "batch_size": 2, "epochs": 1, "patience": 1, "seed": 0, "weight_decay": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least {bound}")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.dropout < 1:
            raise ParameterError(
                f"learning_rate={self.learning_rate} and dropout={self.dropout} must be above 0 and from 0 to below 1"
            )


class _Projection(nn.Module):
    """Standardised dimensions, one hidden layer, unit length: `[n, D]` -> `[n, P]`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, config: MatchConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.layers = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(dim, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.dim),
        )

    def fit(self, values: Tensor) -> None:
        self.mean.copy_(values.mean(dim=0))
        # A dimension that never changes tells nothing.
        self.deviation.copy_(torch.where((spread := values.std(dim=0)) > 0, spread, 1.0))

    def forward(self, values: Tensor) -> Tensor:
        return functional.normalize(self.layers((values - self.mean) / self.deviation), dim=-1)


class _Towers(nn.Module):
    def __init__(self, speech_dim: int, text_dim: int, config: MatchConfig) -> None:
        super().__init__()
        self.speech = _Projection(speech_dim, config)
        self.text = _Projection(text_dim, config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def loss(self, speech: Tensor, text: Tensor, names: Tensor) -> Tensor:
        """Symmetric InfoNCE; the right answers to a pair are all pairs of its name."""
        scores = self.log_scale.exp() * self.speech(speech) @ self.text(text).T
        right = (names[:, None] == names).float()
        right /= right.sum(dim=1, keepdim=True)
        return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


@dataclass
class Matcher:
    """Projections of speech and text embeddings into one space, where cosines tell what belongs together.

    Made by `train_matcher` and `load_matcher`.

    Attributes:
        dims: of the speech and of the text embeddings that it takes.
        config: how it was made.
        about: what a user should know of it, JSON values: encoders, layers, pooling, training.
    """

    dims: tuple[int, int]
    config: MatchConfig
    towers: _Towers = field(repr=False)
    about: dict[str, Any] = field(default_factory=dict)

    def speech(self, embeddings: np.ndarray) -> np.ndarray:
        """Speech embeddings `[n, D]` in the common space, `[n, P]` float32 of unit length.

        Raises:
            ParameterError: if they are of another size.
        """
        return self._project(self.towers.speech, embeddings, self.dims[0])

    def text(self, embeddings: np.ndarray) -> np.ndarray:
        """Text embeddings `[n, D']` in the common space, `[n, P]` float32 of unit length.

        Raises:
            ParameterError: if they are of another size.
        """
        return self._project(self.towers.text, embeddings, self.dims[1])

    @torch.inference_mode()
    def _project(self, projection: _Projection, embeddings: np.ndarray, dim: int) -> np.ndarray:
        values = np.asarray(embeddings, np.float32)
        if values.ndim != 2 or values.shape[1] != dim:
            raise ParameterError(f"embeddings of the shape {values.shape} do not fit; give [n, {dim}]")
        self.towers.eval()
        return projection(torch.from_numpy(values)).numpy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a directory, over one that is there.

        Raises:
            StoreError: if the disk refuses.
        """
        folder = Path(path)
        with disk_errors(f"write the matcher {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            # A matcher is what its matcher.json says: without one, a directory half written is none.
            (folder / MATCHER_JSON).unlink(missing_ok=True)
            temporary = folder / (TENSORS + ".tmp")
            save_file({name: value.numpy() for name, value in self.towers.state_dict().items()}, temporary)
            publish(temporary, folder / TENSORS)
        record = {"format": FORMAT, "dims": self.dims, "config": asdict(self.config), "about": self.about}
        write_text(folder / MATCHER_JSON, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def load_matcher(path: str | os.PathLike[str]) -> Matcher:
    """A matcher that was saved.

    Raises:
        ModelError: if there is none, or it is damaged or of another format.
    """
    folder = Path(path)
    if not (folder / MATCHER_JSON).is_file():
        raise ModelError(f"{str(folder)!r} is no matcher: it has no {MATCHER_JSON}; give the directory of one")
    try:
        found = json.loads((folder / MATCHER_JSON).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ModelError(f"the matcher {folder} has format {found['format']!r}, this version reads {FORMAT}")
        config, dims = MatchConfig(**found["config"]), (int(found["dims"][0]), int(found["dims"][1]))
        towers = _Towers(*dims, config)
        towers.load_state_dict({name: torch.from_numpy(value) for name, value in load_file(folder / TENSORS).items()})
        return Matcher(dims, config, towers, found["about"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the matcher {str(folder)!r} is damaged ({type(error).__name__}: {reason}); train it again or restore it"
        ) from error


def train_matcher(train: Pairs, validation: Pairs, config: MatchConfig | None = None) -> Matcher:
    """Learn projections under which what is said is near to what it is in writing, and far from all else.

    The epoch is kept whose mean reciprocal rank on the validation pairs, over both directions, is best.

    Args:
        train: pairs to learn from.
        validation: pairs of others, such as other speakers and sentences.
        config: how.

    Raises:
        ParameterError: if there are less than two texts on a side, or sizes do not agree.
    """
    config = config or MatchConfig()
    _check(train, "train", train)
    _check(validation, "validation", train)
    speech, text = (torch.from_numpy(np.asarray(part, np.float32)) for part in train[:2])
    names = torch.from_numpy(np.unique(np.asarray(train.names), return_inverse=True)[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        matcher = Matcher((speech.shape[1], text.shape[1]), config, _Towers(speech.shape[1], text.shape[1], config))
        matcher.towers.speech.fit(speech)
        matcher.towers.text.fit(text)
        _learn(matcher, (speech, text, names), validation)
    return matcher


def _learn(matcher: Matcher, train: tuple[Tensor, Tensor, Tensor], validation: Pairs) -> None:
    """Train until the validation pairs are matched no better; the best weights are left in the matcher."""
    towers, config = matcher.towers, matcher.config
    # Neither the temperature nor biases are drawn towards zero.
    weights = [value for value in towers.parameters() if value.ndim > 1]
    others = [value for value in towers.parameters() if value.ndim <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, config.learning_rate)
    best, kept, since = -1.0, towers.state_dict(), 0
    for epoch in range(config.epochs):
        towers.train()
        order = torch.randperm(len(train[0]))
        # A rest of one pair has nothing to be told from.
        for rows in [part for part in order.split(config.batch_size) if len(part) > 1]:
            optimizer.zero_grad()
            towers.loss(*(part[rows] for part in train)).backward()
            optimizer.step()
            with torch.no_grad():
                towers.log_scale.clamp_(max=math.log(MOST_SCALE))
        found = _mean_reciprocal_rank(matcher, validation)
        since += 1
        if found > best:
            best, since = found, 0
            kept = {name: value.clone() for name, value in towers.state_dict().items()}
            matcher.about = {"epoch": epoch + 1, "validation_mrr": found}
        if since >= config.patience:
            break
    towers.load_state_dict(kept)
    towers.eval().requires_grad_(False)


def _mean_reciprocal_rank(matcher: Matcher, pairs: Pairs) -> float:
    scores = matcher.speech(pairs.speech) @ matcher.text(pairs.text).T
    ranks = [retrieval_ranks(one, pairs.names, pairs.names) for one in (scores, scores.T)]
    return float(np.mean([(1 / rank).mean() for rank in ranks]))


def retrieval_ranks(scores: ArrayLike, queries: Sequence[str], gallery: Sequence[str]) -> np.ndarray:
    """The rank of the best right item for every query, `[n]`: 1 where it comes first.

    Items that score as the right one does come before it, so that scores which are all alike find nothing. Items of
    one name count once, as the best of them: a gallery that has a sentence twice has no more to be told from.

    Args:
        scores: `[n, m]`, higher for what rather belongs together.
        queries: `[n]`, names of what is looked for.
        gallery: `[m]`, names of what is looked in.

    Raises:
        ParameterError: if shapes do not agree, or a query has nothing right in the gallery.
    """
    values = np.asarray(scores)
    if values.shape != (len(queries), len(gallery)):
        raise ParameterError(
            f"scores of the shape {values.shape} for {len(queries)} queries and {len(gallery)} items; give [n, m]"
        )
    names, codes = np.unique(np.asarray(gallery), return_inverse=True)
    places = {name: place for place, name in enumerate(names.tolist())}
    if missing := [one for one in queries if one not in places]:
        raise ParameterError(f"{len(missing)} queries have nothing right in the gallery, such as {missing[0]!r}")
    best = np.full((len(queries), len(names)), -np.inf)
    for item, code in enumerate(codes):
        np.maximum(best[:, code], values[:, item], out=best[:, code])
    own = best[np.arange(len(queries)), [places[one] for one in queries]]
    return (best >= own[:, None]).sum(axis=1)


def recall(ranks: ArrayLike, k: int) -> float:
    """Share of queries whose right item is among the first k (R@k)."""
    return float((np.asarray(ranks) <= k).mean())


def _check(pairs: Pairs, side: str, like: Pairs) -> None:
    (speech, text), count = (np.shape(part) for part in pairs[:2]), len(pairs.names)
    if len(speech) != 2 or len(text) != 2 or not speech[0] == text[0] == count:
        raise ParameterError(f"{side}: speech {speech} and text {text} must be n rows of {count} names")
    if [speech[1], text[1]] != [np.shape(part)[1] for part in like[:2]]:
        raise ParameterError(f"{side}: {speech[1]} and {text[1]} dimensions are not those of the training pairs")
    if len(set(pairs.names)) < 2:
        raise ParameterError(f"{side}: {count} pairs of {len(set(pairs.names))} texts; at least two texts are needed")
