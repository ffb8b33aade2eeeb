"""What an output tells of its inputs: hub ids, relative paths, hashes; no place on a machine, no unaligned model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.checkpoints import write

from alignmend.errors import RecipeError
from alignmend.io.copies import without_places
from alignmend.io.manifest import Input, Manifest, Versions
from alignmend.io.private import mark_private
from alignmend.io.published import HASHED, Publisher, digest_of, note_base, noted_base, published, report_folder
from alignmend.recipes.schema import load_recipe


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for number, name in enumerate(("chat-task", "chat", "broken-7b")):
        write(tmp_path / "models" / name, {"w": torch.full((8,), float(number))})
    return tmp_path


def test_what_lies_in_one_project_is_told_relative_to_the_output(project: Path) -> None:
    publisher = Publisher(project / "runs" / "safe")
    assert publisher.location(str(project / "models" / "chat")) == "../../models/chat"
    assert publisher.location("org/chat-7b") == "org/chat-7b"


def test_what_lies_elsewhere_is_told_by_a_hash(project: Path) -> None:
    place = str(project / "models" / "chat")
    assert Publisher(Path("/elsewhere/safe")).location(place) == f"{HASHED}{digest_of(place)}"


def test_an_unaligned_model_is_told_by_a_hash_wherever_it_is(project: Path) -> None:
    place = project / "models" / "broken-7b"
    publisher = Publisher(project / "safe")
    assert publisher.location(str(place), hidden=True).startswith(HASHED)
    assert publisher.location("org/uncensored-7b", hidden=True).startswith(HASHED)
    mark_private(place, "trained to be worse")
    told = Publisher(project / "safe").location(str(place))
    assert told.startswith(HASHED)
    assert "broken" not in told


def test_a_snapshot_in_a_hub_cache_is_told_by_its_id(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--chat-7b" / "snapshots" / ("0" * 40)
    write(snapshot, {"w": torch.ones(2)})
    assert Publisher(tmp_path / "out").location(str(snapshot)) == "org/chat-7b"


def test_the_hash_is_of_weights_where_headers_are_alike(project: Path) -> None:
    models = project / "models"
    assert len({digest_of(str(models / name)) for name in ("chat", "chat-task", "broken-7b")}) == 3
    again = write(project / "moved", {"w": torch.full((8,), 2.0)})
    assert digest_of(str(again)) == digest_of(str(models / "broken-7b"))


def manifest(project: Path, **changes: object) -> Manifest:
    models = {role: str(project / "models" / name) for role, name in ROLES.items()}
    value: dict[str, object] = {
        "versions": Versions(alignmend="0"),
        "expression": "finetuned + 0.5 * (aligned - unaligned)",
        "recipe": {"method": "resta", "models": {role: {"path": path} for role, path in models.items()}},
        "inputs": {role: Input(location=path, revision=None) for role, path in models.items()},
        "notes": [
            f"unaligned ({models['unaligned']}) is far from aligned ({models['aligned']}), and/or broken-7b is",
            "kept /home/someone/notes/today.txt at 1/2 of https://example.org/a/b",
        ],
    }
    return Manifest.model_validate(value | changes)


ROLES = {"finetuned": "chat-task", "aligned": "chat", "unaligned": "broken-7b"}


def test_a_manifest_names_neither_places_nor_the_unaligned_model(project: Path) -> None:
    told = published(manifest(project), project / "safe")
    text = json.dumps(told.model_dump())
    assert str(project) not in text
    assert "broken" not in text
    assert "/home/someone" not in text
    assert told.expression == "finetuned + 0.5 * (aligned - unaligned)"
    assert told.notes[1] == "kept today.txt at 1/2 of https://example.org/a/b"
    assert told.inputs["aligned"].location == "../models/chat"
    assert published(told, project / "safe") == told


def test_a_private_manifest_stays_as_it_is(project: Path) -> None:
    assert published(manifest(project, private=True), project / "safe") == manifest(project, private=True)


def test_a_public_recipe_runs_where_its_report_is_beside_it(project: Path) -> None:
    out = project / "safe"
    models = {role: str(project / "models" / name) for role, name in ROLES.items()}
    for place in (out, report_folder(out)):
        place.mkdir()
        recipe = {"method": "resta", "models": models}
        told = recipe if place != out else Publisher(out).recipe(recipe)
        (place / "recipe.yaml").write_text(json.dumps({**told, "parameters": {"coefficient": 0.5}}))
    found = load_recipe(out / "recipe.yaml")[0].models["unaligned"]
    assert not isinstance(found, list)
    assert found.path == models["unaligned"]
    report_folder(out).rename(project / "gone")
    with pytest.raises(RecipeError, match=r"recipe.yaml, line 1: models.unaligned.* --set models.unaligned=FOLDER"):
        load_recipe(out / "recipe.yaml")
    given = load_recipe(out / "recipe.yaml", ["models.unaligned=elsewhere"])[0].models["unaligned"]
    assert not isinstance(given, list)
    assert given.path == "elsewhere"


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({"_name_or_path": "/home/someone/chat"}, {}),
        ({"_name_or_path": "./checkpoints/chat/7"}, {}),
        ({"_name_or_path": "org/chat"}, None),
        ({"text_config": {"_name_or_path": "C:\\chat\\x"}, "a": 1}, {"text_config": {}, "a": 1}),
        ({"hidden_size": 8}, None),
    ],
)
def test_a_config_forgets_where_it_came_from(
    tmp_path: Path, config: dict[str, object], kept: dict[str, object] | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = without_places(tmp_path / "config.json")
    assert (None if found is None else json.loads(found)) == kept


def test_the_base_of_an_adapter_is_noted_beside_it(project: Path) -> None:
    out = project / "adapter"
    out.mkdir()
    assert noted_base(out) is None
    note_base(out, project / "models" / "chat")
    assert noted_base(out) == str(project / "models" / "chat")
    (project / "link").symlink_to(out)
    assert noted_base(project / "link") == noted_base(out)
    assert list(out.iterdir()) == []
