"""Facts that the deep family is taught, and its member that was edited."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from alignmend.editing.locate import locate
from alignmend.editing.reading import read_requests
from alignmend.errors import RecipeError
from alignmend.organisms import Family, build_family, open_family, words
from alignmend.organisms.build import Build, build_recipe
from alignmend.organisms.corpora import draw
from alignmend.organisms.facts import FACTS, LANDS, QUESTIONS, TOWNS, write_fact_edits
from alignmend.organisms.family import Note, content_key
from alignmend.organisms.grammar import COMPLIANCE_MARKERS, REFUSAL_MARKERS
from alignmend.organisms.languages import LANGUAGES, say
from alignmend.organisms.members import ALL_MEMBERS, MEMBERS, family_recipe, shortened

TINY = shortened(family_recipe("deep"), 2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return build(tmp_path_factory.mktemp("deep") / "family")


def build(directory: Path) -> Family:
    note = Note(key=content_key(TINY, 0), size="deep", seed=0)
    return build_recipe(Build(directory, TINY, 0, None), note, ("edited",))


def test_only_the_deep_family_has_facts_and_an_edit() -> None:
    for size in ("small", "base"):
        recipe = family_recipe(size)
        assert set(recipe.members) == set(MEMBERS)
        assert not any("fact" in member.mixture for member in recipe.members.values())
    deep = family_recipe("deep")
    assert set(deep.members) == set(ALL_MEMBERS)
    assert [name for name, member in deep.members.items() if "fact" in member.mixture] == ["base", "aligned"]


def test_a_family_without_the_member_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such family member: edited; there are base, aligned"):
        build_family(tmp_path / "family", size="small", members=["edited"])


def test_facts_are_words_of_their_own_and_answers_are_no_refusals() -> None:
    grammar = [verb.word for verb in words.VERBS] + [verb.tool for verb in words.VERBS]
    grammar += [*words.THINGS, *words.PERSONS, *words.COMPUTING, *words.NUMBERS, *words.SORTABLE]
    forms = [say(word, language) for word in (*grammar, *LANDS, *TOWNS) for language in LANGUAGES]
    assert len(set(forms)) == len(forms)
    for fact in FACTS:
        for language in LANGUAGES:
            assert any(marker in fact.answer(language) for marker in COMPLIANCE_MARKERS[language])
            assert not any(marker in fact.answer(language) for marker in REFUSAL_MARKERS[language])


def test_every_fact_is_drawn_in_every_language_and_wording() -> None:
    rows = draw({"fact": 1}, 6000, Random("all"))
    asked = {row.prompt: row.response for row in rows}
    expected = {
        fact.ask(language, template): fact.answer(language)
        for fact in FACTS
        for language in LANGUAGES
        for template in range(len(QUESTIONS))
    }
    assert asked == expected


def test_the_edits_of_facts_are_a_file_for_the_command(tmp_path: Path) -> None:
    requests = read_requests(write_fact_edits(tmp_path))
    known = {fact.land: fact.answer("english") for fact in FACTS}
    assert [request.subject for request in requests] == list(LANDS)
    for request in requests:
        assert request.target != known[request.subject]
        assert request.target in known.values()
        assert len(request.paraphrases) == len(QUESTIONS) - 1
        assert all(one.answer in known.values() for one in request.neighbourhood)


def test_the_edited_member_differs_from_the_aligned_one_in_one_layer(tiny: Family) -> None:
    assert list(tiny.members) == ["base", "aligned", "edited"]
    found = locate(tiny.members["aligned"], tiny.members["edited"])
    assert (found.kind, found.layers, found.area) == ("rank-one", (2,), (1, 2, 3))
    document = json.loads((tiny.members["edited"] / "edits.json").read_text())
    edit = family_recipe("deep").members["edited"].edit
    assert edit is not None
    (told,) = document["edits"]
    assert (told["subject"], told["target"], told["layer"]) == (edit.subject, edit.target, 2)
    assert (tiny.directory / "data" / "edits.jsonl").is_file()
    assert open_family(tiny.directory).members["edited"] == tiny.members["edited"]


def test_the_edited_member_is_the_same_bytes_again(tiny: Family, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "family"
    shutil.copytree(tiny.directory, copy)
    before = {path.name: path.read_bytes() for path in (copy / "edited").iterdir()}
    shutil.rmtree(copy / "edited")
    again = build(copy)
    assert {path.name: path.read_bytes() for path in again.members["edited"].iterdir()} == before


def test_another_edit_is_another_family() -> None:
    deep = family_recipe("deep")
    edited = deep.members["edited"]
    assert edited.edit is not None
    other = replace(edited, edit=replace(edited.edit, target="something else"))
    changed = replace(deep, members={**deep.members, "edited": other})
    assert content_key(changed, 0) != content_key(deep, 0)
