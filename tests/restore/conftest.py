"""Shared by the tests of `restore`: organisms, and small suites of theirs."""

from __future__ import annotations

import pytest
from tests.fixtures_organisms import shipped, small_family

from alignmend.organisms import Family

__all__ = ["shipped", "small_family", "suites"]

_EVERY = 3


@pytest.fixture(scope="session")
def suites(shipped: Family, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A third of the organisms' prompts, as options."""
    place = tmp_path_factory.mktemp("suites")
    options = []
    for name in ("harmful", "borderline", "benign", "task"):
        lines = shipped.suites[name].read_text(encoding="utf-8").splitlines()[::_EVERY]
        (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        options += ["--suite", str(place / f"{name}.jsonl")]
    return options
