"""Training a head with one learning rate, or with several of which the best is taken."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechfeat.encoders.devices import choose_device
from speechfeat.errors import ParameterError
from speechfeat.heads.base import HeadRecord
from speechfeat.heads.batches import FrameBatches
from speechfeat.heads.fitting import Fit, FrameConfig, Training
from speechfeat.heads.material import Material
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.networks import FrameNetwork
from speechfeat.heads.objectives import Objective


class Checkpoint:
    """Where a head is saved in the course of its training.

    Args:
        path: of the directory; None saves nothing.
        overwrite: replace a head that is there.

    Raises:
        ParameterError: if something is there and is not to be replaced.
    """

    def __init__(self, path: str | os.PathLike[str] | None, overwrite: bool) -> None:
        self._path, self._overwrite = path, overwrite
        if path is not None and Path(path).exists() and not overwrite:
            raise ParameterError(f"checkpoint {os.fspath(path)!r} is there already; give another path, or overwrite it")

    def save(self, head: FrameHead) -> None:
        """Save it in place of what was saved before."""
        if self._path is not None:
            head.save(self._path, overwrite=self._overwrite)
            self._overwrite = True


class Trials:
    """Trainings of one head, of which the best is kept.

    Args:
        material: that it is trained on.
        objective: what it is trained for.
        saver: of the best so far.
        scale: of cosines; None for a linear classifier.
        stop: ends them.

    Attributes:
        best: the best head so far, and how its training went.
        rows: what is to be recorded of each.
    """

    def __init__(
        self,
        material: Material,
        objective: Objective,
        saver: Checkpoint,
        *,
        scale: float | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.material, self.objective, self.saver = material, objective, saver
        self.best: tuple[FrameHead, Fit] | None = None
        self.rows: list[dict[str, Any]] = []
        self._scale, self._stop = scale, stop

    def run(self, config: FrameConfig, start: int | None = None) -> bool:
        """Train once more; false if it was stopped.

        Args:
            config: how.
            start: place of the layer that the mix starts at; None for all.
        """
        training = HeadTraining(self.material, config, self.objective, self._scale, start)
        least = None if self.best is None else self.best[1].rank
        try:
            fit = training.run(self.saver, least, self._stop)
        except KeyboardInterrupt:
            if self._stop is not None or self.best is None:
                raise
            return False
        self.rows.append(
            {
                "learning_rate": config.learning_rate,
                "start": None if start is None else self.material.binding.layers[start],
                "score": fit.score,
                "epoch": fit.epoch,
                "ended": fit.ended,
            }
        )
        if fit.epoch and (least is None or fit.rank > least):
            self.best = training.head, fit
        return fit.ended != "stop"


def train_best(trials: Trials, configs: Sequence[FrameConfig]) -> FrameHead:
    """Train with each configuration, and with the starts of the mix that it asks for; the best head.

    Args:
        trials: not begun.
        configs: that differ in the learning rate.

    Raises:
        ParameterError: if the loss diverges with all of them.
        KeyboardInterrupt: if it is stopped before the first epoch is over.
    """
    going_on = all(trials.run(config) for config in configs)
    if trials.best is None:
        if not going_on:
            raise KeyboardInterrupt
        rates = ", ".join(f"{config.learning_rate:g}" for config in configs)
        raise ParameterError(
            f"the loss became no number in the first epoch with learning_rate {rates}; use a lower one"
        )
    if going_on:
        rate = trials.best[0].record.options["config"]["learning_rate"]
        chosen = next(config for config in configs if config.learning_rate == rate)
        for start in _probed_starts(trials, chosen):
            if not trials.run(chosen, start):
                break
    head = trials.best[0]
    head.record = replace(head.record, training={**head.record.training, "trials": trials.rows})
    trials.saver.save(head)
    return head


def _probed_starts(trials: Trials, config: FrameConfig) -> list[int]:
    """Places of the layers that tell most alone, as many as asked for, where there is something to choose by."""
    material = trials.material
    if not config.mix_starts or len(material.binding.layers) < 2 or not len(material.fold[1]):
        return []
    scores = np.array(trials.objective.probe(*material.pooled))
    return np.argsort(-scores, kind="stable")[: config.mix_starts].tolist()


class HeadTraining:
    """One training of one head.

    Args:
        material: that it is trained on.
        config: how.
        objective: what it is trained for.
        scale: of cosines; None for a linear classifier.
        start: place of the layer that the mix starts at; None for all.
    """

    def __init__(
        self,
        material: Material,
        config: FrameConfig,
        objective: Objective,
        scale: float | None = None,
        start: int | None = None,
    ) -> None:
        self.material, self.config, self.objective = material, config, objective
        self.device = choose_device(config.device)
        num_layers, _, dim = material.reader.read(int(material.fold[0][0])).shape
        classes, task = material.classes, material.examples.task
        shape = {
            "num_layers": num_layers,
            "dim": dim,
            "num_classes": len(classes),
            "width": config.width,
            "hidden": list(config.hidden),
            "embedding_dim": config.embedding_dim,
            "dropout": config.dropout,
            "normalize": config.normalize,
            "scale": scale,
        }
        options = {"network": shape, "config": config.options()}
        record = HeadRecord(material.kind, task, classes, material.binding, options, material.training)
        with _seeded(config.seed, self.device):
            network = FrameNetwork(material.kind, **shape)
        if start is not None:
            network.mix.start_at(start)
        if network.standardize is not None:
            network.standardize.set_statistics(*map(torch.from_numpy, material.statistics))
        self.head = FrameHead(record, network.to(self.device))

    def run(self, saver: Checkpoint, least: tuple[float, ...] | None, stop: threading.Event | None) -> Fit:
        """Train it; what is better than `least` is saved."""
        config, reader = self.config, self.material.reader
        train, validation = (
            FrameBatches(
                reader,
                rows,
                batch_frames=config.batch_frames,
                batch_size=config.batch_size,
                crop=self.material.crop,
                seed=config.seed,
            )
            for rows in self.material.fold
        )
        training = Training(
            self.head.network,
            self.objective,
            train,
            validation if len(validation.rows) else None,
            config=config,
            device=self.device,
        )

        def keep(fit: Fit) -> None:
            if least is None or fit.rank > least:
                self._describe(fit)
                saver.save(self.head)

        with _seeded(config.seed, self.device):
            fit = training.run(keep, stop)
        self._describe(fit)
        return fit

    def _describe(self, fit: Fit) -> None:
        record = self.head.record
        told = {"epoch": fit.epoch, "ended": fit.ended, "history": list(fit.history)}
        scores = {} if fit.score is None else {"validation": {"metric": self.objective.metric, "score": fit.score}}
        self.head.record = replace(record, training={**record.training, **told}, scores={**record.scores, **scores})


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, all that torch draws hangs on the seed alone, and nothing outside on what is drawn within."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
