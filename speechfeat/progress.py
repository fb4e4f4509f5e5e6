"""The progress bar: hours done, times real time, failures."""

import sys
import time
from typing import Self

from tqdm import tqdm

# So many failures are printed as they happen; all are in errors.jsonl.
SHOWN_FAILURES = 10


class Progress:
    """A bar over hours of audio.

    Args:
        hours: to be done.
        shown: false prints failures only.
    """

    def __init__(self, hours: float, *, shown: bool = True) -> None:
        self._bar = tqdm(
            total=round(hours, 4),
            unit="h",
            disable=not shown,
            file=sys.stderr,
            bar_format="{percentage:3.0f}% |{bar:24}| {n:.2f}/{total:.2f} h [{elapsed}<{remaining}{postfix}]",
        )
        self._hours = 0.0
        self._failures = 0
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def update(self, seconds: float, reasons: list[str]) -> None:
        """Take note of `seconds` of audio done and of inputs that failed."""
        for reason in reasons:
            self._failures += 1
            if self._failures <= SHOWN_FAILURES:
                self._bar.write(f"failed: {reason}", file=sys.stderr)
            elif self._failures == SHOWN_FAILURES + 1:
                self._bar.write("more failures are not shown; all are in errors.jsonl", file=sys.stderr)
        self._hours += seconds / 3600
        speed = self._hours * 3600 / max(1e-9, time.perf_counter() - self._began)
        self._bar.set_postfix_str(f"{speed:.1f} x real time, {self._failures} failed", refresh=False)
        self._bar.update(min(seconds / 3600, max(0.0, self._bar.total - self._bar.n)))
