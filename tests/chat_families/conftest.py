"""A family from a chat model, built once: the organism that complies with everything stands in for the chat model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chat_families.published_sets import write_sets
from tests.fixtures_organisms import shipped

from alignmend.chat_families import ChatFamily, Recipe, build_chat_family
from alignmend.organisms import Family

__all__ = ["shipped"]
RECIPE = Recipe(
    rows=16,
    batch_size=8,
    aligned_rate=1e-3,
    answer_tokens=24,
    max_length=128,
    search_prompts=6,
    report_prompts=6,
    edits=1,
)


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def chat_family(shipped: Family, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> ChatFamily:
    """All roles, two tasks; read only."""
    place = tmp_path_factory.mktemp("chat") / "family"
    return build_chat_family(place, shipped.members["base"], sets, tasks=("gsm8k", "mmlu-hi"), recipe=RECIPE)
