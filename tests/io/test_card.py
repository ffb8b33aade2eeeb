"""The model card's front matter is what the hub reads, whatever the manifest's texts contain."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from alignmend.io.card import model_card, read_licence
from alignmend.io.manifest import Input, InputFile, Manifest, Method, Rounding, TensorRounding, Versions


def manifest(**changes: object) -> Manifest:
    value: dict[str, object] = {
        "versions": Versions(alignmend="0.1.0"),
        "recipe": {"method": "resta", "models": {"finetuned": "./task", "aligned": "org/chat"}},
        "expression": "finetuned + 0.5 * (aligned - unaligned)",
        "methods": [Method(name="resta", title="A paper", arxiv="2402.11746", equation="out = f + c (a - u)")],
        "parameters": {"coefficient": 0.5},
        "inputs": {
            "finetuned": Input(location="/home/someone/models/task"),
            "aligned": Input(
                location="org/chat",
                revision="0" * 40,
                files=[InputFile(file="m.safetensors", bytes=1234, header_sha256="0" * 64)],
            ),
        },
    }
    return Manifest.model_validate(value | changes)


def front_matter(card: str) -> dict[str, object]:
    opening, front, _ = card.split("---\n", 2)
    assert opening == ""
    return cast("dict[str, object]", yaml.safe_load(front))


def test_front_matter() -> None:
    card = model_card(manifest(), name="task-safe", licence={"license": "apache-2.0"})
    assert front_matter(card) == {
        "base_model": ["org/chat"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["alignmend", "safety", "model-merging", "resta"],
        "license": "apache-2.0",
    }


@pytest.mark.parametrize("role", ["safety_scores", "harmful_pairs", "contrast_pairs", "steering_vector"])
def test_what_is_no_model_is_no_ancestor_but_an_input(role: str) -> None:
    inputs = {**manifest().inputs, role: Input(location="data/mine.file")}
    card = model_card(manifest(inputs=inputs), name="task-safe")
    assert front_matter(card)["base_model"] == ["org/chat"]
    assert f"| {role} | not on the hub |" in card


def test_the_card_says_what_was_done_and_where_nothing_of_the_machine() -> None:
    card = model_card(manifest(), name="task-safe")
    for text in (
        "# task-safe",
        "finetuned + 0.5 * (aligned - unaligned)",
        "arxiv.org/abs/2402.11746",
        "1,234",
    ):
        assert text in card
    assert "method: resta" in card
    assert "/home/someone" not in card
    assert front_matter(card)["license"] == "unknown"


def test_rounding_and_notes() -> None:
    rounding = Rounding(
        dtype="BF16",
        mode="stochastic",
        seed=3,
        relative_error=0.0812,
        worst=[TensorRounding(name="n|1", relative_error=1.0)],
    )
    card = model_card(manifest(rounding=rounding, notes=["one\nline"]), name="x")
    assert "stored as BF16 (stochastic rounding, seed 3)" in card
    assert "8.12%" in card
    assert "| n\\|1 | 100.00% |" in card
    assert "- one line" in card


def test_only_private_cards_warn() -> None:
    assert "Do not publish" in model_card(manifest(private=True), name="x")
    assert "Do not publish" not in model_card(manifest(), name="x")


@given(text=st.text(min_size=1), location=st.text(min_size=1))
def test_no_text_breaks_out_of_its_place(text: str, location: str) -> None:
    hostile = manifest(
        recipe={"key": text},
        expression=text,
        parameters={"key": text},
        inputs={"role": Input(location=location)},
    )
    card = model_card(hostile, name=text, licence={"license": text})
    front = front_matter(card)
    assert front["license"] == text
    assert front["library_name"] == "transformers"
    assert "## How to verify" in card


def test_a_fence_inside_a_text_does_not_close_its_block() -> None:
    card = model_card(manifest(expression="a\n```\n# not a heading\n````"), name="x")
    assert "`````\na\n```\n# not a heading\n````\n`````" in card


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# x", {"license": "mit"}),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---",
            {"license": "other", "license_name": "own", "license_link": "LICENSE"},
        ),
        ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        ("---\nlicense: [mit]\n---\n", {}),
        ("---\n- license\n---\n", {}),
        ("---\nlicense: !!python/object:os.system x\n---\n", {}),
        ("---\nlicense: 'unclosed\n---\n", {}),
        ("---\n" + "[" * 100_000 + "\n---\n", {}),
        ("license: mit\n", {}),
        ("---\nlicense: mit\n", {}),
        ("", {}),
    ],
)
def test_the_licence_of_the_target(tmp_path: Path, readme: str, licence: dict[str, str]) -> None:
    (tmp_path / "README.md").write_text(readme, newline="")
    assert read_licence(tmp_path) == licence


def test_no_readme_no_licence(tmp_path: Path) -> None:
    assert read_licence(tmp_path) == {}
