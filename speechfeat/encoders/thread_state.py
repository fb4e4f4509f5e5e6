"""What every thread that runs an encoder has for itself."""

import threading
from typing import Any, Self


class ThreadState(threading.local):
    """Attributes of which each thread sees its own; a copy, as of a module that holds it, begins anew."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()
