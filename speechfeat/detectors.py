"""Training heads that find keywords in long recordings, from recordings in which it is known when they are spoken.

head = train_detector(store, events)     # events: id, label, start, end
found = detect(head, other_store)
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from speechfeat.detection import BACKGROUND, Listening
from speechfeat.errors import ParameterError
from speechfeat.heads.base import HeadRecord, describe_training
from speechfeat.heads.binding import Binding
from speechfeat.heads.choosing import LayerChoice, choose_layer
from speechfeat.heads.estimators import TunedClassifier, pooled_head
from speechfeat.heads.pooled import PooledHead
from speechfeat.heads.states import describe_pipeline, plain
from speechfeat.layers import Layers, select_layers
from speechfeat.store import Store
from speechfeat.windows import Slider

# Intersection over union of a window and a word, from which on it is the word, and below which it is not. What lies
# between is neither: the values that object detectors in pictures are trained with (Girshick et al. 2014, Ren et al.
# 2015).
IS_WORD, IS_NONE = 0.7, 0.3
# A word that no window fits so well is the window that fits it best, if it fits at all.
FITS = 0.5
# From one length of windows to the next: a word between two of them is like one to 0.85 at least, which leaves room for
# where it begins.
STEP = 1.4
# Of the lengths of the words, the shares that the windows reach from and to.
SHORTEST, LONGEST = 0.05, 0.95
# Of heads; measured on FSDD digits in Common Voice speech, and not searched: the search scores all classes alike.
_DEFAULTS = {"logistic": {"C": 0.01}}


def train_detector(
    store: Store,
    events: pd.DataFrame,
    kind: str = "logistic",
    *,
    ids: Sequence[str] | None = None,
    layers: Layers | None = None,
    windows: Sequence[float] | None = None,
    hop: float = 0.04,
    threshold: float = 0.5,
    negatives: int = 20,
    rounds: int = 1,
    task: str = "keyword",
    seed: int = 0,
    **options: Any,
) -> PooledHead:
    """Train a head that tells keywords from everything else that is spoken, for `detect`.

    It learns from windows that slide over the recordings: those that a word fills are the word, those with little or
    nothing of one are background, half of them at the edges of words. Then it listens to its training recordings, and
    learns again with the background that it took for words (hard negatives), `rounds` times.

    What precedes and follows a word changes its states in an encoder with attention: train on words in running speech
    (`write_long_recordings` makes some) rather than on clips of single words. Such clips can be added as recordings
    whose event is the whole.

    Args:
        store: with frames and a pooling of "mean", "std", "mean+std" or "max", which the head takes.
        events: a row a word: id (of the recording), label, start and end in seconds of it; and, if known, group, such
            as the speaker: what is chosen in folds of the training data is chosen by that.
        kind: of head, one of `POOLED_KINDS`.
        ids: of the recordings to train on; None for all. What is in no event is background.
        layers: None for all that the store has, side by side; "auto" for the one that best tells words of other groups
            than it was trained on from each other and from background, which without groups is a layer too low, for
            it knows the speakers; else as for `load_encoder`.
        windows: lengths in seconds; None takes some from the shortest words to the longest.
        hop: seconds from one window to the next.
        threshold: probability from which on the head will report a keyword.
        negatives: windows of background for every word, before rounds.
        rounds: of adding hard negatives, each as many as there were negatives at first.
        task: what the labels are called.
        seed: of the choice of background, and of the head.
        options: of `pooled_head`.

    Returns:
        A head with the class `_background_` beside the keywords.

    Raises:
        ParameterError: if the events do not fit the recordings, or an option is out of range.
        StoreError: if an id is not in the store.
    """
    keys = store.ids if ids is None else list(ids)
    words = _checked(events, keys, store)
    how = Listening(tuple(_lengths(words) if windows is None else windows), hop, BACKGROUND, threshold)
    if negatives < 1 or rounds < 0:
        raise ParameterError(f"negatives={negatives} and rounds={rounds} must be at least 1 and at least 0")
    binding = Binding.of(store, _named_layers(store, layers))
    material = _Material(Slider(store, binding, how.windows, hop), keys, words)
    told: dict[str, Any] = {}
    if layers == "auto" and len(binding.layers) > 1:
        choice = material.choose_layer(len(words), seed)
        told = {"layer_metric": "uar", "layer_scores": [list(binding.layers), [list(one) for one in choice.scores]]}
        binding = replace(binding, layers=(binding.layers[choice.position],))
        material = _Material(Slider(store, binding, how.windows, hop), keys, words)
    estimator = pooled_head(kind, seed=seed, **{**_DEFAULTS.get(kind, {}), **options})
    material.fit(estimator, negatives * len(words), rounds, seed)
    pipeline = estimator.best_estimator_
    record = HeadRecord(
        kind,
        task,
        tuple(material.classes),
        binding,
        {
            "detection": how.describe(),
            "negatives": negatives,
            "rounds": rounds,
            "seed": seed,
            **{name: plain(name, value) for name, value in options.items()},
            **told,
            "pipeline": describe_pipeline(pipeline)[0],
        },
        describe_training(store, _names(words), words["label"].tolist()),
    )
    return PooledHead(record, pipeline)


def _checked(events: pd.DataFrame, keys: Sequence[str], store: Store) -> pd.DataFrame:
    """The events of these recordings, in their order."""
    if missing := {"id", "label", "start", "end"}.difference(events.columns):
        raise ParameterError(f"events have no column {', '.join(sorted(missing))}; give id, label, start and end")
    words = events[events["id"].isin(set(keys))].reset_index(drop=True)
    known = words["group"] if "group" in words else pd.Series("", words.index)
    words["group"] = known.where(known.notna() & (known != ""), "recording " + words["id"])
    if words.empty:
        known = f"ids such as {keys[0]!r}" if keys else "no ids"
        raise ParameterError(f"none of {len(events)} events is in a recording to train on, which have {known}")
    if not all(isinstance(label, str) and label for label in words["label"]):
        raise ParameterError("some events have a label that is no name; give each a text that is not empty")
    if (words["label"] == BACKGROUND).any():
        raise ParameterError(f"{BACKGROUND!r} is what is not in any event; leave it out of the events")
    table = store.table().set_index("id").loc[words["id"].tolist()]
    ends = (table["start"] + table["duration"]).to_numpy()
    wrong = ~((words["start"] < words["end"]) & (words["start"] >= 0) & (words["start"] < ends))
    if wrong.any():
        first = words[wrong].iloc[0]
        raise ParameterError(
            f"{int(wrong.sum())} of {len(words)} events do not lie in their recordings, first {first['label']!r} from "
            f"{first['start']} to {first['end']} s of {first['id']!r}"
        )
    return words


def _names(words: pd.DataFrame) -> list[str]:
    """Of the events, with all that is known of them but the label."""
    spans = zip(words["id"], words["start"], words["end"], strict=True)
    return [f"{key}#{start:.3f}-{end:.3f}" for key, start, end in spans]


def _lengths(words: pd.DataFrame) -> list[float]:
    """Of windows, in seconds: from those of the shortest words to those of the longest, in steps of one factor."""
    first, last = (words["end"] - words["start"]).quantile([SHORTEST, LONGEST])
    count = int(np.ceil(np.log(last / first) / np.log(STEP))) + 1
    return [round(float(length), 3) for length in np.geomspace(first, last, count)]


class _Material:
    """All windows of the recordings to train on, in the order in which they slide by.

    Attributes:
        classes: the words and background, sorted.
        labels: of the word that each overlaps most; background where it overlaps none.
        overlaps: with that word, intersection over union.
        is_word: whether it is that word.
        groups: of the word where it is one, else the recording.
    """

    def __init__(self, slider: Slider, keys: Sequence[str], words: pd.DataFrame) -> None:
        self._slider, self._keys = slider, keys
        self.classes = sorted({*words["label"], BACKGROUND})
        found = [_compare(slider, key, words[words["id"] == key]) for key in keys]
        self.labels, self.overlaps, self.is_word, self.groups = (
            np.concatenate(parts) for parts in zip(*found, strict=True)
        )
        if (self.overlaps >= IS_NONE).all():
            raise ParameterError("there is nothing but keywords in the recordings; add some of other speech")
        if unfit := sorted(set(words["label"]).difference(self.labels[self.is_word])):
            raise ParameterError(
                f"no window is like {unfit[0]!r}, which takes "
                f"{(words['end'] - words['start'])[words['label'] == unfit[0]].median():.2f} s; give other windows="
            )

    def choose_layer(self, count: int, seed: int) -> LayerChoice:
        """The layer that best tells so many windows of words and of background, in folds by group."""
        rng = np.random.default_rng(seed)
        chosen = _some(self.is_word, count, rng) | self._draw(count, rng)
        values, codes = self._gather(chosen)
        return choose_layer(values, codes, self.groups[chosen], seed=seed)

    def fit(self, estimator: TunedClassifier, negatives: int, rounds: int, seed: int) -> None:
        """Fit on words and background, and again with the background that was taken for words."""
        chosen = self.is_word | self._draw(negatives, np.random.default_rng(seed))
        self._fit(estimator, chosen)
        for _ in range(rounds):
            chosen |= self._hardest(estimator, negatives)
            self._fit(estimator, chosen)

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Windows of background, at random: half of them touch a word, as far as there are such."""
        apart, touching = self.overlaps == 0, (self.overlaps > 0) & (self.overlaps < IS_NONE)
        return _some(apart, count // 2, rng) | _some(touching, count // 2, rng)

    def _hardest(self, estimator: TunedClassifier, count: int) -> np.ndarray:
        """The windows of background that are least taken for it."""
        column = self.classes.index(BACKGROUND)
        shares = [estimator.predict_proba(values.reshape(len(values), -1))[:, column] for values in self._values()]
        hardness = np.where(self.overlaps < IS_NONE, 1 - np.concatenate(shares), -1.0)
        hardest = np.zeros(len(self.labels), bool)
        hardest[np.argsort(-hardness, kind="stable")[:count]] = True
        return hardest & (hardness >= 0)

    def _fit(self, estimator: TunedClassifier, chosen: np.ndarray) -> None:
        values, codes = self._gather(chosen)
        estimator.fit(values.reshape(len(values), -1), codes, self.groups[chosen])

    def _gather(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings `[n, L, D']` of the windows chosen, and the number of the class of each."""
        parts, begin = [], 0
        for values in self._values():
            parts.append(values[chosen[begin : begin + len(values)]])
            begin += len(values)
        numbers = {name: number for number, name in enumerate(self.classes)}
        labels = np.where(self.is_word, self.labels, BACKGROUND)[chosen]
        return np.concatenate(parts), np.array([numbers[label] for label in labels])

    def _values(self) -> Iterator[np.ndarray]:
        """Embeddings of all windows, some thousands at a time, `[n, L, D']`."""
        for key in self._keys:
            for piece in self._slider.slide(key):
                yield piece.embeddings


def _some(among: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the places that are true, or all if there are fewer."""
    places = np.flatnonzero(among)
    chosen = np.zeros(len(among), bool)
    chosen[rng.choice(places, min(count, len(places)), replace=False)] = True
    return chosen


def _named_layers(store: Store, layers: Layers | None) -> tuple[int, ...] | None:
    """Numbers of layers; None for all."""
    if layers is None or layers in ("all", "auto"):
        return None
    return select_layers(layers, store.config["encoder"]["num_layers"]).indices


def _compare(slider: Slider, key: str, words: pd.DataFrame) -> tuple[np.ndarray, ...]:
    """Of all windows of a recording: label of and overlap with the word most overlapped, whether it is it, group."""
    spans = list(slider.spans(key))
    sizes = np.cumsum([0] + [len(starts) for starts, _ in spans])
    labels, overlaps = np.full(sizes[-1], BACKGROUND, object), np.zeros(sizes[-1])
    groups, fits = np.full(sizes[-1], f"recording {key}", object), np.zeros(sizes[-1], bool)
    for word in words.itertuples():
        best, place = FITS, -1
        for begin, (starts, ends) in zip(sizes, spans, strict=False):
            first, stop = np.searchsorted(ends, word.start, "right"), np.searchsorted(starts, word.end, "left")
            near = slice(begin + first, begin + stop)
            shared = np.minimum(ends[first:stop], word.end) - np.maximum(starts[first:stop], word.start)
            overlap = shared / (ends[first:stop] - starts[first:stop] + word.end - word.start - shared)
            more = overlap > overlaps[near]
            labels[near][more], overlaps[near][more] = word.label, overlap[more]
            groups[near][more] = word.group
            if len(overlap) and overlap.max() > best:
                best, place = overlap.max(), begin + first + int(overlap.argmax())
        if place >= 0:
            fits[place] = labels[place] == word.label
    is_word = fits | (overlaps >= IS_WORD)
    return labels, overlaps, is_word, np.where(is_word, groups, f"recording {key}")
