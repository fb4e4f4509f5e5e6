"""What the process keeps of memory that it no longer needs."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from speechfeat.cli import main_with_errors
from speechfeat.memory import PREPARED, give_back_freed, keep_freed_memory


def held_mebibytes() -> float:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these switches")
def test_freed_memory_stays_until_it_is_given_back() -> None:
    keep_freed_memory()
    give_back_freed()
    before = held_mebibytes()
    blocks = [np.ones(2**13) for _ in range(1600)]
    kept = blocks[-1]
    del blocks
    assert held_mebibytes() > before + 50
    give_back_freed()
    assert held_mebibytes() < before + 20
    assert kept.sum() == 2**13


def test_commands_keep_few_shapes_prepared_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    told, other = PREPARED
    monkeypatch.setenv(told, "7")
    monkeypatch.delenv(other, raising=False)
    seen: dict[str, str | None] = {}

    def command() -> int:
        seen.update({name: os.environ.get(name) for name in PREPARED})
        return 0

    assert main_with_errors(command) == 0
    monkeypatch.delenv(other)
    assert seen == {told: "7", other: PREPARED[other]}
