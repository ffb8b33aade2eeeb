"""`run` with patches that are stored deltas: it scores them and merges what it would have of whole checkpoints."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tests.fixtures_organisms import shipped

import alignmend as am
from alignmend.io.manifest import read_manifest
from alignmend.organisms import Family
from alignmend.recipes.apply import Switches
from alignmend.recipes.schema import load_recipe
from alignmend.restore.parts import PARTS
from alignmend.restore.recipe_run import run_recipe

__all__ = ["shipped"]


def test_stored_patches_are_scored_and_merged_as_whole_ones(shipped: Family, tmp_path: Path) -> None:
    lines = (shipped.directory / "data" / "harmful_pairs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "pairs.jsonl").write_text("".join(itertools.islice(lines, 6)))
    written = {
        "method": "safe_patching",
        "models": {"target": str(shipped.members["aligned"])},
        "parameters": {"safety_rate": 0.1, "over_safety_rate": 0.1, "density": 0.5},
        "data": {"harmful_pairs": "pairs.jsonl"},
        "training": {"learning_rate": 1e-3, "max_steps": 2, "batch_size": 4, "stop_loss": 9},
        "scores": {"samples": 4, "weights": "patched"},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(written))
    whole = load_recipe(tmp_path / "r.yaml", (), lacking=PARTS)[0]
    parts = run_recipe(whole, tmp_path, tmp_path / "whole", Switches(), keep_private=True).parts
    assert parts is not None
    target = am.open(shipped.members["aligned"])
    for role in ("safety", "over_safety"):
        saved = am.save_delta(am.open(parts / role) - target, tmp_path / role, target=target, form="sparse")
        assert saved.manifest.private, "as the patch is"
    settings = [f"models.{role}={tmp_path / role}" for role in ("safety", "over_safety")]
    stored = load_recipe(tmp_path / "r.yaml", settings, lacking=PARTS)[0]
    run_recipe(stored, tmp_path, tmp_path / "stored", Switches(), keep_private=True)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stored"))
    assert one == other
    scores = tmp_path / "stored-private" / "safety_scores"
    assert read_manifest(scores).inputs["adapter"].location == str(tmp_path / "safety")
