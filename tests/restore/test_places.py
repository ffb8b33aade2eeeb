"""What lies beside an output of `restore`: only what a restore made is removed, and kills are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignmend.errors import OutputError
from alignmend.restore.places import JOURNAL, KEPT_JOURNAL, RESULTS, Places, check_free, clear, held


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "out")


def published(places: Places) -> None:
    """As a restore leaves it between publishing and clearing."""
    for folder in (places.out, places.work, places.report):
        folder.mkdir()
    (places.out / RESULTS).write_text("{}")
    (places.report / KEPT_JOURNAL).write_text("one\n")
    (places.work / ".lock").touch()
    (places.work / JOURNAL).write_text("one\n")


@pytest.mark.parametrize(
    ("journal", "finished"),
    [
        ("one\n", True),
        ("one\ntwo\n", True),  # by a process that joined
        ("other\n", False),
        (None, False),  # locked, and no trial yet
    ],
)
def test_an_output_is_finished_until_another_search_begins(
    places: Places, journal: str | None, *, finished: bool
) -> None:
    published(places)
    (places.work / JOURNAL).unlink() if journal is None else (places.work / JOURNAL).write_text(journal)
    assert places.finished == finished


def test_clearing_may_stop_anywhere(places: Places) -> None:
    published(places)
    seen = []
    for name in (".lock", JOURNAL):
        (places.work / name).unlink()
        seen.append(places.finished)
    clear(places, keep_private=False)
    assert not places.work.exists()
    assert [*seen, places.finished] == [True, True, True]


@pytest.mark.parametrize("name", ["out-private", "out-search"])
def test_folders_of_others_stay(places: Places, tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name / "thesis.txt"
    theirs.parent.mkdir()
    theirs.touch()
    for resume, overwrite in ((False, False), (True, False), (False, True)):
        with pytest.raises(OutputError, match="no restore made"):
            check_free(places, resume=resume, overwrite=overwrite)


def test_what_began_nothing_leaves_nothing(places: Places) -> None:
    with pytest.raises(OutputError, match="wrong"), held(places, afresh=False):
        raise OutputError("wrong")
    assert not places.work.exists()


def test_a_folder_that_was_only_held_is_no_unfinished_restore(places: Places) -> None:
    places.work.mkdir()
    (places.work / ".lock").touch()
    check_free(places, resume=False, overwrite=False)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_no_place_for_an_output(places: Places, tmp_path: Path, *, there: bool) -> None:
    if there:
        (tmp_path / "large-disk").mkdir()
    places.out.symlink_to(tmp_path / "large-disk")
    with pytest.raises(OutputError, match="is a link"):
        check_free(places, resume=False, overwrite=True)
