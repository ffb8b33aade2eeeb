"""The benchmark of switches counts in passes over the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.switching import DTYPES, Cost, main, table


def test_it_runs_on_a_small_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--size", "2MB", "--switches", "2", "--threads", "1", "--work", str(tmp_path)])
    rows = capsys.readouterr().out.strip().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [*DTYPES]


def test_three_passes_are_the_most() -> None:
    rows = table(iter([Cost("float32", 1, 9.0, 0.3, 0.1), Cost("float32", 2, 9.0, 0.31, 0.1)])).splitlines()[2:]
    assert rows[0].endswith("| 3.00 | yes |")
    assert rows[1].endswith("| 3.10 | **no** |")
