"""How much of what a change of the channel costs is won back without labels: adaptation against augmentation.

result = compare_adaptations(corpus, "runs/features", "conformer-s", metric="uar")
print(markdown_table(result.rows()))
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from speechfeat.augmentation import Augmentation, copies_of
from speechfeat.corpora.base import Corpus
from speechfeat.errors import ParameterError
from speechfeat.experiments.crossval import MEASURES
from speechfeat.experiments.features import POOL, CorpusFeatures, corpus_features, features_folder, model_slug
from speechfeat.experiments.protocol import Protocol, check_leaks, make_protocol
from speechfeat.heads.adapted import ADVERSARIAL, train_adapted_head
from speechfeat.heads.base import Head
from speechfeat.heads.binding import Binding
from speechfeat.heads.choosing import choose_layer
from speechfeat.heads.estimators import POOLED_KINDS, unknown_kind
from speechfeat.heads.pooled import train_pooled_head
from speechfeat.metrics import bootstrap_interval
from speechfeat.probing import LayerScore
from speechfeat.store import Store
from speechfeat.types import Utterance

# A telephone band of 8 kHz in 8 bits of the mu-law, and noise of 10 dB where the speaker is.
TELEPHONE = Augmentation.only(noise=1.0, noise_ratio=(10.0, 10.0), telephone=1.0, least_length=1.0)
# What somebody does who knows nothing of the target, and somebody who knows what it is but not how loud its noise is.
AUGMENTATIONS = {
    "general": Augmentation(least_length=1.0),
    "matched": Augmentation.only(noise=1.0, noise_ratio=(0.0, 20.0), telephone=1.0, least_length=1.0),
}
CLEAN, NONE, CEILING = "no shift", "none", "ceiling"
UNOPPOSED = "adversarial, strength 0"


@dataclass(frozen=True)
class AdaptationPlan:
    """What is compared.

    Attributes:
        degraded: how the target differs from the source.
        augmentations: rivals by name: training on augmented copies of the source.
        copies: of each utterance, for these.
        labelled: share of the training utterances, even over classes, that are the labelled source; the others, made
            worse and without their labels, are the target that is adapted to. No recording is in both.
        kind: of the heads, one of `POOLED_KINDS`; adversarial ones are networks.
        options: of the heads, see `pooled_head`.
        layers: "auto" chooses, in each fold, the one that tells most on the source, for all rows alike; else as for
            `train_head`.
        seed: of everything that is drawn.

    Raises:
        ParameterError: for a value out of range.
    """

    degraded: Augmentation = TELEPHONE
    augmentations: Mapping[str, Augmentation] = field(default_factory=lambda: dict(AUGMENTATIONS))
    copies: int = 2
    labelled: float = 0.5
    kind: str = "logistic"
    options: Mapping[str, Any] = field(default_factory=dict)
    layers: Any = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.labelled < 1:
            raise ParameterError(f"labelled={self.labelled} must be a share, between 0 and 1")
        if self.copies < 1:
            raise ParameterError(f"copies={self.copies} must be at least 1")
        if self.kind not in POOLED_KINDS:
            raise ParameterError(unknown_kind(self.kind, POOLED_KINDS))


@dataclass(frozen=True)
class AdaptationResult:
    """What came of it.

    Attributes:
        protocol: by which the corpus was divided.
        metric: of the scores.
        scores: by method, with 95 % intervals by a bootstrap over the groups of the protocol.
        gains: by method, over none at all: differences on the same utterances, with their intervals.
        layers: that were taken in each fold.
        answers: of every utterance tested: id, fold, label, and what each method answered.
    """

    protocol: Protocol
    metric: str
    scores: dict[str, LayerScore]
    gains: dict[str, LayerScore]
    layers: list[tuple[int, ...]]
    answers: pd.DataFrame = field(repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """A row a method, for `markdown_table`."""
        return [
            {"method": name, self.metric: score, "gain": self.gains.get(name)} for name, score in self.scores.items()
        ]


def compare_adaptations(
    corpus: Corpus,
    kept: str | os.PathLike[str],
    model: str,
    *,
    plan: AdaptationPlan | None = None,
    split: str = "auto",
    k: int = 5,
    metric: str = "accuracy",
    pool: str = POOL,
    allow_leaks: bool = False,
    **extraction: Any,
) -> AdaptationResult:
    """Train on clean recordings, test on copies of others that were made worse, with each way to bear it.

    The rows, all trained on the same labelled utterances and tested on the same others, of other speakers where the
    split keeps speakers apart:

    * "no shift": tested on the clean recordings instead.
    * "none": nothing is done.
    * "mean-variance", "coral", "adversarial": see `train_adapted_head`; and the network of the last without its
      adversary.
    * "augmentation, NAME": trained on the clean recordings and augmented copies of them.
    * "ceiling": trained on copies that were made worse as the tested ones were.

    Args:
        corpus: from `open_corpus`.
        kept: directory of features; a second run takes what is there.
        model: as for `load_encoder`.
        plan: what is compared.
        split: see `make_protocol`.
        k: folds where the split says k.
        metric: "accuracy", "uar" or "macro_f1".
        pool: of the embeddings.
        allow_leaks: go on although a speaker or a recording is on both sides.
        extraction: of `corpus_features`: device, dtype, quiet, short_window ...

    Raises:
        ParameterError: for a leak, or a corpus that cannot be divided or told apart.
        SpeechfeatError: as of extraction.
    """
    if metric not in MEASURES:
        raise ParameterError(f"metric={metric!r} is not known; use {', '.join(MEASURES)}")
    chosen = plan or AdaptationPlan()
    # Before anything is extracted: a split that leaks or cannot be made is told first.
    protocol = make_protocol(corpus, corpus.utterances, split, k=k, seed=chosen.seed)
    check_leaks(corpus, corpus.utterances, protocol, allowed=allow_leaks)
    domains = _Domains.extract(corpus, kept, model, chosen, pool=pool, **extraction)
    protocol = make_protocol(domains.corpus, domains.corpus.utterances, split, k=k, seed=chosen.seed)
    values, parts, layers = domains.corpus.values(), [], []
    bar = tqdm(protocol.folds, unit="fold", desc=f"{model}: adaptation", disable=extraction.get("quiet"))
    for number, (train, test) in enumerate(bar):
        heads = list(_Fold.of(domains, protocol, train, chosen).heads())
        layers.append(heads[0][1].record.binding.layers)
        ids = [domains.corpus.utterances[row].id for row in test]
        told = {name: _answer(head, *where(ids)) for name, head, where in heads}
        parts.append(pd.DataFrame({"id": ids, "fold": number, "label": [values[row] for row in test], **told}))
    answers = pd.concat(parts, ignore_index=True)
    tested = np.concatenate([test for _, test in protocol.folds])
    groups = None if protocol.groups is None else np.array(protocol.groups)[tested]
    return AdaptationResult(protocol, metric, *_scored(answers, list(told), groups, MEASURES[metric]), layers, answers)


class _Domains(NamedTuple):
    """The corpus, as far as all of it could be read, and its features as each domain has them."""

    corpus: Corpus
    clean: Store
    degraded: Store
    augmented: dict[str, Store]

    @classmethod
    def extract(
        cls,
        corpus: Corpus,
        kept: str | os.PathLike[str],
        model: str,
        plan: AdaptationPlan,
        *,
        pool: str,
        **extraction: Any,
    ) -> "_Domains":
        folder = features_folder(kept, model, corpus, pool=pool)

        def found(name: str, utterances: Sequence[Utterance], augmentation: Augmentation | None) -> CorpusFeatures:
            return corpus_features(
                replace(corpus, utterances=utterances),
                folder.with_name(f"{folder.name}-{name}") if name else folder,
                model,
                "all",
                pool=pool,
                augmentation=augmentation,
                **extraction,
            )

        originals = list(corpus.utterances)
        clean = found("", originals, None)
        degraded = found("degraded", copies_of(originals, 1), plan.degraded)
        copies = [*originals, *copies_of(originals, plan.copies)]
        augmented = {
            name: found(f"{model_slug(name)}{plan.copies}", copies, one).store
            for name, one in plan.augmentations.items()
        }
        there = [one for one in clean.utterances if f"{one.id}#1" in degraded.store]
        return cls(replace(corpus, utterances=there), clean.store, degraded.store, augmented)


class _Fold(NamedTuple):
    """The training side of a fold."""

    domains: _Domains
    plan: AdaptationPlan
    source: list[str]
    labels: list[str]
    groups: list[str] | None
    target: list[str]
    layers: Any

    @classmethod
    def of(cls, domains: _Domains, protocol: Protocol, train: np.ndarray, plan: AdaptationPlan) -> "_Fold":
        values = domains.corpus.values()
        names = [values[row] for row in train]
        try:
            source, target = train_test_split(train, train_size=plan.labelled, stratify=names, random_state=plan.seed)
        except ValueError as error:
            raise ParameterError(
                f"{len(train)} utterances to train on cannot be divided at labelled={plan.labelled}: {error}"
            ) from error
        ids = [utterance.id for utterance in domains.corpus.utterances]
        labels = [values[row] for row in source]
        groups = None if protocol.inner is None else [protocol.inner[row] for row in source]
        layers = plan.layers
        if layers == "auto":
            binding = Binding.of(domains.clean)
            embeddings = binding.embeddings(domains.clean, [ids[row] for row in source])
            layers = (binding.layers[choose_layer(embeddings, labels, groups, seed=plan.seed).position],)
        chosen = [ids[row] for row in source], labels, groups, [f"{ids[row]}#1" for row in target]
        return cls(domains, plan, *chosen, layers)

    def heads(self) -> Iterator[tuple[str, Head, Callable[[list[str]], tuple[Store, list[str]]]]]:
        """Methods with their heads, and where the features of tested utterances are for each."""
        plain = self._train(self.domains.clean, self.source)
        yield CLEAN, plain, lambda ids: (self.domains.clean, ids)
        yield NONE, plain, self._degraded
        for method in ("mean-variance", "coral"):
            yield method, self._adapt(method, self.plan.kind, **self.plan.options), self._degraded
        yield UNOPPOSED, self._adapt(ADVERSARIAL, strength=0.0), self._degraded
        yield ADVERSARIAL, self._adapt(ADVERSARIAL), self._degraded
        for name, store in self.domains.augmented.items():
            numbers = range(1, self.plan.copies + 1)
            copies = [*self.source, *(f"{key}#{number}" for number in numbers for key in self.source)]
            yield f"augmentation, {name}", self._train(store, copies), self._degraded
        yield CEILING, self._train(self.domains.degraded, [f"{key}#1" for key in self.source]), self._degraded

    def _degraded(self, ids: list[str]) -> tuple[Store, list[str]]:
        return self.domains.degraded, [f"{key}#1" for key in ids]

    def _train(self, store: Store, ids: list[str]) -> Head:
        """A head on utterances of the source, or on them and copies of them in their order, again and again."""
        there = [place for place, key in enumerate(ids) if key in store]
        # Without groups, an utterance and its copies are one: they are not to be on both sides of a choice.
        labels, groups = self.labels, self.groups or self.source
        return train_pooled_head(
            store,
            [labels[place % len(labels)] for place in there],
            self.plan.kind,
            ids=[ids[place] for place in there],
            groups=[groups[place % len(groups)] for place in there],
            layers=self.layers,
            seed=self.plan.seed,
            **self.plan.options,
        )

    def _adapt(self, method: str, kind: str | None = None, **options: Any) -> Head:
        return train_adapted_head(
            self.domains.clean,
            self.labels,
            self.domains.degraded,
            method,
            kind,
            ids=self.source,
            target_ids=self.target,
            groups=self.groups,
            layers=self.layers,
            seed=self.plan.seed,
            **options,
        )


def _answer(head: Head, store: Store, ids: list[str]) -> np.ndarray:
    return np.array(head.classes)[head.probabilities(store, ids).argmax(axis=1)]


def _scored(
    answers: pd.DataFrame, methods: Sequence[str], groups: np.ndarray | None, metric: Callable[..., float]
) -> tuple[dict[str, LayerScore], dict[str, LayerScore]]:
    # Numbers are compared faster than names.
    numbers = {name: number for number, name in enumerate(sorted(set(answers["label"])))}
    codes = {name: answers[name].map(numbers).to_numpy() for name in ("label", *methods)}
    scores, gains = {}, {}
    for name in methods:
        pair = codes["label"], codes[name]
        scores[name] = LayerScore(metric(*pair), *bootstrap_interval(metric, *pair, groups=groups))
        if name != NONE:
            three = (*pair, codes[NONE])
            gains[name] = LayerScore(
                _gain(metric, *three), *bootstrap_interval(lambda *drawn: _gain(metric, *drawn), *three, groups=groups)
            )
    return scores, gains


def _gain(metric: Callable[..., float], labels: np.ndarray, answers: np.ndarray, others: np.ndarray) -> float:
    return metric(labels, answers) - metric(labels, others)
