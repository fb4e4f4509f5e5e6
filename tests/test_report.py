"""Results and reports: what is written reads back, tables hold any text, a report says how it was made."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from speechfeat.errors import ParameterError, StoreError
from speechfeat.experiments.report import (
    Section,
    markdown_table,
    read_results,
    score_cell,
    write_report,
    write_results,
)
from speechfeat.leaks import Leak
from speechfeat.probing import LayerScore


def test_results_read_back_as_plain_values(tmp_path: Path) -> None:
    results = {
        "score": LayerScore(np.float32(0.5), float("nan"), np.inf),
        "leak": Leak(1, 2, 3, 4, (("a", "b", "c"),)),
        "counts": np.arange(3),
        "matrix": pd.DataFrame([[1, 2]], ["ä"], ["b", "c"]),
        "path": tmp_path,
        "by layer": {np.int64(3): np.bool_(True)},
        "none": None,
    }
    file = write_results(tmp_path / "new" / "folder", results)
    assert file.name == "results.json"
    assert json.loads(file.read_text(encoding="utf-8")) == read_results(file.parent)
    assert read_results(file.parent) == {
        "score": {"score": 0.5, "low": None, "high": None},
        "leak": {"count": 1, "train": 2, "test": 3, "unknown": 4, "examples": [["a", "b", "c"]]},
        "counts": [0, 1, 2],
        "matrix": {"index": ["ä"], "columns": ["b", "c"], "data": [[1, 2]]},
        "path": str(tmp_path),
        "by layer": {"3": True},
        "none": None,
    }


def test_results_that_cannot_be_written_leave_the_old_ones(tmp_path: Path) -> None:
    write_results(tmp_path, {"one": 1})
    with pytest.raises(ParameterError, match=r"results\.deep\[1\] is a object"):
        write_results(tmp_path, {"deep": [1, object()]})
    assert read_results(tmp_path) == {"one": 1}


def test_results_that_are_not_there_or_damaged(tmp_path: Path) -> None:
    assert read_results(tmp_path) is None
    (tmp_path / "results.json").write_text('{"cut": ')
    with pytest.raises(StoreError, match="damaged"):
        read_results(tmp_path)


def test_a_table_keeps_its_cells_whatever_they_hold() -> None:
    rows = [
        {"model": "a|b, c", "score": LayerScore(0.123, 0.1, 0.15)},
        {"model": "two\nlines", "score": float("nan"), "note": None},
        {"note": 0},
    ]
    lines = markdown_table(rows).splitlines()
    assert lines[:2] == ["| model | score | note |", "| --- | --- | --- |"]
    assert lines[2:] == ["| a\\|b, c | 12.3 (10.0-15.0) | - |", "| two lines | - | - |", "| - | - | 0 |"]
    assert markdown_table(rows, ["note", "model"]).splitlines()[2] == "| - | a\\|b, c |"
    with pytest.raises(ParameterError, match="no column"):
        markdown_table([])


def test_a_score_has_its_scale() -> None:
    assert score_cell(0.5, 0.25, 1) == "50.0 (25.0-100.0)"
    assert score_cell(0.5, 0.25, 1, scale=1, digits=3) == "0.500 (0.250-1.000)"


def test_a_report_holds_command_sections_and_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "out" / "my model" / "det.png"
    command = "python recipes/one.py --root 'a b'"
    file = write_report(tmp_path / "out", "Title", command, [Section("Scores", "| a |")], {"a|b": picture})
    text = file.read_text(encoding="utf-8")
    assert file == tmp_path / "out" / "report.md"
    assert f"```\n{command}\n```" in text
    assert "## Scores\n\n| a |\n" in text
    assert "(my%20model/det.png)" in text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Title",
        "## Command",
        "## Scores",
        "## Pictures",
        "## Versions",
    ]
    assert "speechfeat 0." in text
    without = write_report(tmp_path, "Title", command, [])
    assert "Pictures" not in without.read_text(encoding="utf-8")
