"""What the commands share: exit codes, messages, errors without tracebacks, and a graceful stop."""

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from speechfeat.errors import ModelError, ParameterError, SpeechfeatError
from speechfeat.memory import keep_few_prepared

EXIT_OK = 0
EXIT_FATAL = 1
EXIT_BAD_CALL = 2
EXIT_FAILED_INPUTS = 3
EXIT_INTERRUPTED = 130


def tell(message: str) -> None:
    """A line for the person in front of the screen; standard output is left to results."""
    print(message, file=sys.stderr, flush=True)


def main_with_errors(main: Callable[[], int]) -> int:
    """Run a command; an error of speechfeat becomes one line and an exit code."""
    # At its end Python would look through all modules for garbage, several times: a second with torch's.
    atexit.register(gc.freeze)
    keep_few_prepared()
    try:
        return main()
    except (ParameterError, ModelError) as error:
        tell(f"error: {error}")
        return EXIT_BAD_CALL
    except SpeechfeatError as error:
        tell(f"error: {error}")
        return EXIT_FATAL
    except KeyboardInterrupt:
        tell("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FATAL


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Within it, the first Ctrl-C or SIGTERM sets `stop`; the second Ctrl-C interrupts at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        # Not `tell`: the signal may have come in the middle of a line that is being printed.
        os.write(2, b"\nstopping after the batch in flight; press Ctrl-C again to stop at once\n")

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
