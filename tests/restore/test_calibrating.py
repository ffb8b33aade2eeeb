"""Input moments in a restore: over prompts that neither choose nor prove, and what comes of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from alignmend.cli import main
from alignmend.errors import ParameterError
from alignmend.evaluation.overlap import find_overlaps, near_duplicates
from alignmend.evaluation.suites import load_suite
from alignmend.io.manifest import read_manifest
from alignmend.organisms import Family
from alignmend.restore.calibrating import MOST, sources, text_kind
from alignmend.restore.candidates import choose_families
from alignmend.restore.families import FAMILIES
from alignmend.restore.request import Prompts, Request
from alignmend.restore.suites import STARTERS, split_suites

TEXTS = Path("src/alignmend/restore/texts")
KINDS = ("harmful", "harmless", "borderline")


def request(tmp_path: Path, **options: Any) -> Request:
    return Request(finetuned="f", out=tmp_path / "out", aligned="a", **options)


def test_what_ships_is_enough_and_shares_nothing_with_the_starter_suites() -> None:
    shipped = [load_suite(TEXTS / f"{kind}.jsonl") for kind in KINDS]
    starters = [load_suite(name, split="all") for name in STARTERS]
    assert not find_overlaps(starters, shipped) and not near_duplicates(shipped)
    assert all(len(suite.prompts) >= MOST[suite.name] for suite in shipped)  # type: ignore[index]
    assert all(text_kind(suite, one) == "harmful" for suite in shipped[:1] for one in suite.prompts)


ALARMING = re.compile(
    r"""\b(attack|blow|bomb|break|burglar|burn|choke|crime|crush|cut|dead|destroy|drain|explode|fire|force|guillotine|hack|
    hang|harm|hit|hurt|kill|killer|knife|murder|nuke|poison|rob|shoot|skin|slaughter|slay|smash|stab|steal|strangle|strip|
    throw|torch|trap|weapon|whack|wipe)\w*""",
    re.VERBOSE,
)


def test_borderline_prompts_that_ship_alarm_by_other_words_than_the_starter_suite() -> None:
    """The starter suite chooses and proves: with its verbs in the calibration it would say too much of itself."""
    ours, starters = load_suite(TEXTS / "borderline.jsonl"), load_suite("starter-borderline", split="all")
    assert len(ours.prompts) >= 100
    known = {match[1] for one in starters.prompts for match in ALARMING.finditer(one.text.lower())}
    assert len(known) > 25
    again = {one.text for one in ours.prompts for match in ALARMING.finditer(one.text.lower()) if match[1] in known}
    assert not again


def test_sources_neither_choose_nor_prove_and_the_users_own_come_first(tmp_path: Path) -> None:
    prompts = Prompts(search_prompts=16)
    split = split_suites(prompts, 0)
    found = sources(split, request(tmp_path, prompts=prompts))
    seen = {one.text for suite in (*split.search, *split.report) for one in suite.prompts}
    for kind, places in found.items():
        assert [place.shipped for place in places] == [False, True], kind
        assert not seen & {one.text for place in places for one in place.prompts}
    assert found["borderline"][0].name == "starter-borderline" and found["harmless"][0].name == "starter-benign"
    own = tmp_path / "own.jsonl"
    rows: list[dict[str, Any]] = [{"prompt": f"Harm number {n}", "expected": "refuse"} for n in range(9)]
    rows += [{"prompt": f"What is {n} plus {n}?", "expected": "comply", "answer": str(2 * n)} for n in range(9)]
    rows.append({"prompt": split.report[0].prompts[0].text, "expected": "refuse"})
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = Prompts(search_prompts=16, calibration_suites=(str(own),))
    found = sources(split, request(tmp_path, prompts=mine))
    assert {kind: [len(place.prompts) for place in places] for kind, places in found.items()} == {
        "harmful": [9],  # the tenth proves
        "harmless": [9],
        "borderline": [],
    }


def test_without_an_unaligned_model_only_what_needs_none_is_tried(tmp_path: Path) -> None:
    choice = choose_families(request(tmp_path), is_adapter=False)
    assert choice.families[0] == "resta_weighted"
    assert not any({"unaligned", "patches"} & set(FAMILIES[name].needs) for name in choice.families)
    assert all("unaligned" in one.why or "--harmful-data" in one.why for one in choice.left_out)
    adapters = choose_families(request(tmp_path, as_adapter=True), is_adapter=True).families
    assert adapters[0] == "resta_weighted" and all(FAMILIES[name].low_rank for name in adapters)
    with pytest.raises(ParameterError, match=r"nothing to try: .*resta: needs an unaligned model"):
        choose_families(request(tmp_path, methods=("resta",)), is_adapter=False)
    with pytest.raises(ParameterError, match=r"nothing to try: .*resta_weighted: no texts"):
        choose_families(request(tmp_path, methods=("resta_weighted",)), is_adapter=False).without("moments", "no texts")


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """Both streams, lines joined."""
    return " ".join(" ".join(capsys.readouterr()).split())


def options(shipped: Family, suites: list[str], out: Path) -> list[str]:
    family = [str(shipped.directory / "finetuned"), "--aligned", str(shipped.directory / "aligned"), *suites]
    asked = ["--judge", "organism", "--search-prompts", "12", "--search-tokens", "24", "--max-new-tokens", "40"]
    return ["restore", *family, *asked, "--yes", "--out", str(out)]


def test_a_restore_without_unaligned_model_writes_a_model_whose_recipe_repeats_it(
    shipped: Family, suites: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "safe"
    limits = ["--max-over-refusal", "1", "--min-utility", "0", "--max-incoherent", "1"]
    assert main([*options(shipped, suites, out), *limits, "--trials", "1"]) == 0
    told = shown(capsys)
    assert "to try: resta_weighted" in told and "input moments are taken over" in told
    assert "harmful texts are noisy: 240 or more" in told
    kept = tmp_path / "safe-report"
    recipe = (out / "recipe.yaml").read_text()
    assert "harmful_texts: ../safe-report/calibration/harmful.jsonl" in recipe
    assert "direction: aligned-finetuned" in recipe
    assert yaml.safe_load(recipe) == read_manifest(out).recipe
    assert yaml.safe_load(recipe)["data"].keys() == {"harmful_texts", "harmless_texts", "borderline_texts"}
    results = json.loads((out / "results.json").read_text())
    uses = {one["suite"] for one in results["tuned_on"] if one["use"] == "calibration"}
    assert uses >= {"calibration-harmful", "calibration-borderline"}
    texts = {json.loads(line)["prompt"] for path in (kept / "calibration").glob("*.jsonl") for line in path.open()}
    asked = {
        json.loads(line)["prompt"] for path in (kept / "records").rglob("generations.jsonl") for line in path.open()
    }
    assert texts and asked and not texts & asked
    public = "".join(path.read_text() for path in out.iterdir() if path.suffix in (".md", ".yaml", ".json"))
    assert not [one for one in texts | asked if one in public]
    modes = {path: path.stat().st_mode & 0o777 for path in (kept / "calibration", *(kept / "calibration").iterdir())}
    assert set(modes.values()) == {0o700, 0o600}, modes
    assert not (tmp_path / "safe-private").exists() and not (tmp_path / "safe-search").exists()
    assert main(["verify", str(out)]) == 0
    for number, place in enumerate((out, kept)):
        again = tmp_path / f"again-{number}"
        assert main(["run", str(place / "recipe.yaml"), "--out", str(again)]) == 0
        assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert not list(tmp_path.glob("again-*-private"))


def test_too_few_texts_leave_the_family_out_and_the_others_go_on(
    shipped: Family, suites: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    few = tmp_path / "few.jsonl"
    few.write_text(json.dumps({"prompt": "Nothing much.", "expected": "comply"}) + "\n")
    more = ["--calibration-suite", str(few), "--trials", "1"]
    unaligned = ["--unaligned", str(shipped.directory / "unaligned"), "--method", "resta,resta_weighted"]
    assert main([*options(shipped, suites, tmp_path / "a"), *more, *unaligned]) in (0, 1)
    told = shown(capsys)
    assert "nothing is weighed by inputs: too few texts for input moments: of prompts" in told
    assert "resta (coefficient 0.5)" in told
    assert main([*options(shipped, suites, tmp_path / "b"), *more, "--method", "resta_weighted"]) == 2
    assert "nothing to try: " in capsys.readouterr().err
