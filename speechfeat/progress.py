"""The progress bar: how much is done, how fast, failures."""

import sys
import time
from typing import Self

from tqdm import tqdm

from speechfeat.units import HOURS, Measure

# So many failures are printed as they happen; all are in errors.jsonl.
SHOWN_FAILURES = 10


class Progress:
    """A bar over hours of audio, or another measure of input.

    Args:
        hours: to be done, of the frame grid.
        shown: false prints failures only.
        measure: in which it is told.
    """

    def __init__(self, hours: float, *, shown: bool = True, measure: Measure = HOURS) -> None:
        self._measure = measure
        number = f".{measure.digits}f"
        self._bar = tqdm(
            total=round(hours * HOURS.seconds / measure.seconds, 4),
            unit=measure.unit,
            disable=not shown,
            file=sys.stderr,
            bar_format=f"{{percentage:3.0f}}% |{{bar:24}}| {{n:{number}}}/{{total:{number}}} {measure.unit} "
            "[{elapsed}<{remaining}{postfix}]",
        )
        self._seconds = 0.0
        self._failures = 0
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def update(self, seconds: float, reasons: list[str]) -> None:
        """Take note of `seconds` of input done and of inputs that failed."""
        for reason in reasons:
            self._failures += 1
            if self._failures <= SHOWN_FAILURES:
                self._bar.write(f"failed: {reason}", file=sys.stderr)
            elif self._failures == SHOWN_FAILURES + 1:
                self._bar.write("more failures are not shown; all are in errors.jsonl", file=sys.stderr)
        self._seconds += seconds
        speed = self._measure.speed(self._seconds, time.perf_counter() - self._began)
        self._bar.set_postfix_str(f"{speed}, {self._failures} failed", refresh=False)
        self._bar.update(min(seconds / self._measure.seconds, max(0.0, self._bar.total - self._bar.n)))
