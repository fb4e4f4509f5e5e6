"""What all heads share: what is known of one, its directory on disk, its answers.

```
head/
  head.json          kind, classes, encoder and its fingerprint, layers, pooling, options, training data, scores
  head.safetensors   its arrays
```
"""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from speechfeat.errors import ModelError, ParameterError
from speechfeat.heads.binding import Binding
from speechfeat.store import Store
from speechfeat.store_config import disk_errors, publish, write_text

FORMAT = 1
HEAD_JSON, TENSORS = "head.json", "head.safetensors"


@dataclass(frozen=True)
class HeadRecord:
    """What is known of a head beside its arrays; JSON values only.

    Attributes:
        kind: such as "logistic" or "xvector".
        task: the label that it tells, such as "emotion".
        classes: what it may answer, in the order of its probabilities.
        binding: the features it takes.
        options: how it was made and trained.
        training: what it was trained on: number of utterances, their hash.
        scores: what is known of how good it is.
    """

    kind: str
    task: str
    classes: tuple[str, ...]
    binding: Binding
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)


class Head(ABC):
    """A trained head.

    Attributes:
        record: what is known of it.
    """

    def __init__(self, record: HeadRecord) -> None:
        self.record = record

    @property
    def classes(self) -> list[str]:
        """What it may answer, in the order of its probabilities."""
        return list(self.record.classes)

    @abstractmethod
    def probabilities(self, store: Store, ids: Sequence[str] | None = None) -> np.ndarray:
        """Of every class, for utterances of a store, `[n, C]`; in the order of `ids`, or of `store.ids`.

        Raises:
            ParameterError: if the features are not those that it was trained on.
            StoreError: if an id is not in the store.
        """

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What `save` writes beside the record."""

    def predict(self, store: Store, ids: Sequence[str] | None = None) -> pd.DataFrame:
        """A row an utterance: id, label (the answer), probability (of the answer), and a column `p_CLASS` each.

        Takes and raises what `probabilities` does.
        """
        return self.tabulate(store.ids if ids is None else list(ids), self.probabilities(store, ids))

    def tabulate(self, ids: Sequence[str], shares: np.ndarray) -> pd.DataFrame:
        """The table of `predict`, of probabilities `[n, C]` that are known."""
        best = shares.argmax(axis=1)
        table = {
            "id": ids,
            "label": np.array(self.classes, dtype=object)[best],
            "probability": shares[np.arange(len(best)), best],
            **{f"p_{name}": shares[:, column] for column, name in enumerate(self.classes)},
        }
        return pd.DataFrame(table)

    def score(self, **scores: Any) -> None:
        """Add to what is known of how good it is, to be saved with it."""
        self.record = replace(self.record, scores={**self.record.scores, **scores})

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write it as a directory.

        Args:
            path: of the directory.
            overwrite: replace a head that is there.

        Raises:
            ParameterError: if there is something else, or a head and not `overwrite`.
            StoreError: if the disk refuses.
        """
        folder = Path(path)
        if folder.exists() and not (overwrite and _is_head(folder)):
            raise ParameterError(
                f"{str(folder)!r} is there already"
                + ("; give another path, or overwrite it" if _is_head(folder) else " and no head; give another path")
            )
        with disk_errors(f"write the head {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            # A head is what its head.json says: without one, a directory half written is none.
            (folder / HEAD_JSON).unlink(missing_ok=True)
            temporary = folder / (TENSORS + ".tmp")
            save_file({name: np.ascontiguousarray(value) for name, value in self.arrays().items()}, temporary)
            publish(temporary, folder / TENSORS)
        record = {"format": FORMAT, **asdict(self.record)}
        write_text(folder / HEAD_JSON, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def average_copies(head: Head, store: Store, copies: Store, ids: Sequence[str]) -> np.ndarray:
    """Probabilities of utterances averaged over themselves and their augmented copies, `[n, C]`.

    Args:
        head: that answers.
        store: features of the utterances.
        copies: features of `copies_of` them; one that failed is left out.
        ids: of the utterances.
    """
    numbers = sorted({int(key.rpartition("#")[2]) for key in copies.ids})
    total, counts = head.probabilities(store, ids).astype(np.float64), np.ones(len(ids))
    for number in numbers:
        there = [row for row, key in enumerate(ids) if f"{key}#{number}" in copies]
        total[there] += head.probabilities(copies, [f"{ids[row]}#{number}" for row in there])
        counts[there] += 1
    return total / counts[:, None]


def read_head(path: str | os.PathLike[str]) -> tuple[HeadRecord, dict[str, np.ndarray]]:
    """The record and the arrays of a saved head.

    Raises:
        ModelError: if there is none, or it is damaged or of another format.
    """
    folder = Path(path)
    if not _is_head(folder):
        raise ModelError(
            f"{str(folder)!r} is no head: it has no {HEAD_JSON}; give the directory that a head was saved to"
        )
    try:
        found = json.loads((folder / HEAD_JSON).read_text(encoding="utf-8"))
        if (format_ := found.pop("format")) != FORMAT:
            raise ModelError(f"the head {folder} has format {format_!r}, this version reads {FORMAT}")
        binding = found.pop("binding")
        found["binding"] = Binding(**{**binding, "layers": tuple(binding["layers"])})
        record = HeadRecord(**{**found, "classes": tuple(found["classes"])})
        return record, load_file(folder / TENSORS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"the head {str(folder)!r} is damaged ({type(error).__name__}: {error}); train it again or restore it"
        ) from error


def check_labels(ids: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """The classes among labels, sorted.

    Raises:
        ParameterError: if there is not one label an utterance, one is missing, or all are alike.
    """
    if len(ids) != len(labels):
        raise ParameterError(f"{len(ids)} utterances and {len(labels)} labels; give one label for every utterance")
    missing = [key for key, label in zip(ids, labels, strict=True) if not isinstance(label, str) or not label]
    if missing:
        raise ParameterError(
            f"{len(missing)} of {len(ids)} utterances have no label, first {missing[0]!r}; leave such utterances out"
        )
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise ParameterError(
            f"all of {len(ids)} labels are {', '.join(classes) or 'missing'}; a head needs two classes"
        )
    return classes


def describe_training(store: Store, ids: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """For a record: how many utterances of which store a head was trained on, and a hash of their ids and labels."""
    lines = "\n".join(sorted(f"{key}\t{label}" for key, label in zip(ids, labels, strict=True)))
    digest = hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return {"utterances": len(ids), "hash": digest, "store": store.fingerprint}


def _is_head(folder: Path) -> bool:
    return (folder / HEAD_JSON).is_file()
