"""The course of a training: a row a step in `curves.csv`, a picture, and TensorBoard's log where it is installed."""

from pathlib import Path
from typing import Any, Self

import pandas as pd

from speechfeat.plots import plot_training
from speechfeat.store_config import write_text

CURVES_CSV, CURVES_PNG = "curves.csv", "curves.png"


class Curves:
    """Losses and scores by step.

    Args:
        directory: where they are written.
        rows: step, epoch, loss, rate (of the head) and, after the last step of an epoch, score; added to in place.
        metric: name of the score.
    """

    def __init__(self, directory: Path, rows: list[dict[str, Any]], metric: str) -> None:
        self.directory, self.rows, self.metric = directory, rows, metric
        self._log: Any = None

    def __enter__(self) -> Self:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # it is optional
            return self
        # What was logged after the checkpoint that a training goes on from is taken back.
        begun = self.rows[-1]["step"] + 1 if self.rows else 0
        self._log = SummaryWriter(str(self.directory / "tensorboard"), purge_step=begun)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._log is not None:
            self._log.close()
        if any(row["loss"] is not None for row in self.rows):
            self.write()
            plot_training(self.rows, self.metric, self.directory / CURVES_PNG)

    def add(self, *, step: int, epoch: int, loss: float, rate: float) -> None:
        """Take note of a step."""
        self.rows.append({"step": step, "epoch": epoch, "loss": loss, "rate": rate, "score": None})
        if self._log is not None:
            self._log.add_scalar("loss", loss, step)
            self._log.add_scalar("rate", rate, step)

    def mark(self, score: float | None) -> None:
        """Take note of a validation, after the last step or before the first."""
        if score is None:
            return
        if not self.rows:
            self.rows.append({"step": 0, "epoch": 0, "loss": None, "rate": None})
        self.rows[-1]["score"] = score
        if self._log is not None:
            self._log.add_scalar(self.metric, score, self.rows[-1]["step"])

    def write(self) -> None:
        """Write the table."""
        table = pd.DataFrame(self.rows).rename(columns={"score": self.metric})
        write_text(self.directory / CURVES_CSV, table.to_csv(index=False, float_format="%.6g"))
