"""Training a head with one learning rate, or with several of which the best is taken."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from speechfeat.encoders.devices import choose_device
from speechfeat.errors import ParameterError
from speechfeat.heads.base import HeadRecord
from speechfeat.heads.batches import FrameBatches
from speechfeat.heads.fitting import Diverged, Fit, FrameConfig, Objective, Training
from speechfeat.heads.material import Material
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.networks import FrameNetwork


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


def train_best(
    material: Material,
    configs: Sequence[FrameConfig],
    objective: Objective,
    saver: Checkpoint,
    *,
    scale: float | None = None,
    stop: threading.Event | None = None,
) -> FrameHead:
    """Train with each configuration and take the best; see `train_frame_head`.

    Args:
        material: that it is trained on.
        configs: that differ in the learning rate.
        objective: what it is trained for.
        saver: of the best so far.
        scale: of cosines; None for a linear classifier.
        stop: ends it.
    """
    best: tuple[FrameHead, Fit] | None = None
    rows: list[dict[str, Any]] = []
    for config in configs:
        began = time.perf_counter()
        training = HeadTraining(material, config, objective, scale)
        least = None if best is None else best[1].rank
        try:
            fit = training.run(saver, least, stop)
        except KeyboardInterrupt:
            if stop is not None or best is None:
                raise
            break
        except Diverged:
            if len(configs) == 1:
                raise
            fit = Fit(ended="divergence")
        rows.append(
            {
                "learning_rate": config.learning_rate,
                "score": fit.score,
                "epoch": fit.epoch,
                "ended": fit.ended,
                "seconds": round(time.perf_counter() - began, 1),
            }
        )
        if best is None or fit.rank > best[1].rank:
            best = (training.head, fit) if fit.epoch else best
        if fit.ended == "stop":
            break
    if best is None:
        if rows[-1]["ended"] == "stop":
            raise KeyboardInterrupt
        raise Diverged(f"the loss became no number with all of {len(rows)} learning rates; try lower ones")
    head = best[0]
    if len(configs) > 1:
        head.record = replace(head.record, training={**head.record.training, "sweep": rows})
    saver.save(head)
    return head


class HeadTraining:
    """One training of one head.

    Args:
        material: that it is trained on.
        config: how.
        objective: what it is trained for.
        scale: of cosines; None for a linear classifier.
    """

    def __init__(self, material: Material, config: FrameConfig, objective: Objective, scale: float | None) -> None:
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
                crop=self.material.crop(config.crop_seconds),
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
