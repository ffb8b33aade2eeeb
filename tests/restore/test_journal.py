"""A search goes on from a journal whose last line was not written whole."""

from __future__ import annotations

from pathlib import Path

from alignmend.evaluation.metrics import wilson
from alignmend.restore.candidates import Choice
from alignmend.restore.front import Aim
from alignmend.restore.request import Limits
from alignmend.restore.scoring import Worth
from alignmend.restore.trials import Trials, Tried

RATE = wilson(3, 12)
WORTH = Worth(RATE, RATE, RATE, RATE, RATE, 0.9, {"drift": 0.9})


def opened(folder: Path) -> Trials:
    return Trials(folder, Choice(("resta",), ()), {"seed": 0}, layers=4, seed=0)


def tell_one(trials: Trials) -> None:
    trial, candidate = trials.ask(Aim(Limits(), WORTH))
    tried = Tried(trial.number, candidate, "whole", "", WORTH, 0.5, 1.0, 0.1)
    trials.tell(trial, tried, {"utility": 0.05})


def test_what_is_before_a_torn_line_is_kept(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    for _ in range(3):
        tell_one(trials)
    whole = (tmp_path / "journal.log").read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, last + 20, len(whole) - 1):
        # What was torn, then what the same process wrote after it, and a line of another one.
        for after in (b"", b'{"op_code": 6', b'{"op\n{"op_code": 6}\n'):
            (tmp_path / "journal.log").write_bytes(whole[:cut] + after)
            again = opened(tmp_path)
            assert (tmp_path / "journal.log").read_bytes().startswith(whole[:last])
            assert [one.number for one in again.tried()] == [0, 1, 2]
            tell_one(again)
            assert len(again.tried()) == 4


def test_a_sound_journal_is_left_as_it_is(tmp_path: Path) -> None:
    tell_one(opened(tmp_path))
    before = (tmp_path / "journal.log").read_bytes()
    assert len(opened(tmp_path).tried()) == 1
    assert (tmp_path / "journal.log").read_bytes().startswith(before)  # opening adds a line of its own
