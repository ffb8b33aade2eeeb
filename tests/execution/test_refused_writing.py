"""Where writing fails there is one clear message, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.checkpoints import computed, normal, write

import alignmend as am
from alignmend.errors import FileFormatError, NonFiniteError, OutputError
from alignmend.execution.blocks import Evaluator
from alignmend.execution.files import Files
from alignmend.execution.journal import Journal, read_journal
from alignmend.execution.parallel import in_order
from alignmend.execution.pieces import PieceReport
from alignmend.execution.threads import DEFAULT_MOST, thread_count

SHAPES = {"model.a": (300, 1000), "model.b": (70_000,)}

LIMITED = """
import resource, sys
import alignmend as am
from alignmend.errors import OutputError
a, b = (am.open(path) for path in sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    am.save(a + (b - a), sys.argv[3], max_shard_size=sys.argv[5])
except OutputError as error:
    print(error)
"""


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / role, normal(seed, SHAPES)) for seed, role in enumerate("ab")]


@pytest.mark.parametrize(
    ("limit", "shard"), [(1_000_000, "5GB"), (500_000, "300KB"), (2_000, "5GB"), (100, "5GB"), (10, "5GB")]
)
def test_a_limit_on_file_sizes_is_one_clear_error(limit: int, shard: str, pair: list[Path], tmp_path: Path) -> None:
    arguments = [*map(str, pair), str(tmp_path / "out"), str(limit), shard]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "File too large" in done.stdout and str(tmp_path) in done.stdout and done.stdout.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("device", ["/dev/full"])
def test_a_full_disk_is_one_clear_error(device: str, pair: list[Path], tmp_path: Path) -> None:
    """The model card goes to a device that is always full."""
    if not Path(device).exists():
        pytest.skip("the system has no device that is always full")
    a, b = map(am.open, pair)

    def fill(what: str, done: int, total: int) -> None:
        if what == "hash":
            (tmp_path / ".out.alignmend-partial" / "README.md").symlink_to(device)

    with pytest.raises(OutputError, match=r"the disk that holds .* is full; nothing was left behind"):
        am.save(a + (b - a), tmp_path / "out", progress=fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_an_input_is_never_replaced(pair: list[Path], tmp_path: Path) -> None:
    a, b = map(am.open, pair)
    for out in (pair[0], pair[1], tmp_path):
        with pytest.raises(OutputError, match=r"is one of the inputs|holds an input"):
            am.save(a + (b - a), out, overwrite=True)
    computed(a + (b - a), pair[0] / "inside")


def test_an_existing_output_stays_when_its_replacement_fails(pair: list[Path], tmp_path: Path) -> None:
    a, b = map(am.open, pair)
    am.save(a + (b - a), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(NonFiniteError, match="overflows float32"):
        am.save(a + 1e300 * (b - a), tmp_path / "out", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out"]


def test_an_input_that_changes_between_kill_and_resume_is_noticed(pair: list[Path], tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "write":
            raise KeyboardInterrupt

    a, b = map(am.open, pair)
    with pytest.raises(KeyboardInterrupt):
        am.save(a + (b - a), tmp_path / "out", progress=interrupt)
    weights = pair[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(OutputError, match="has other inputs or options"):
        am.save(a + (am.open(pair[1]) - a), tmp_path / "out", resume=True)
    am.save(a + (am.open(pair[1]) - a), tmp_path / "out")


def test_the_journal_survives_a_line_cut_short(tmp_path: Path) -> None:
    path, output = tmp_path / "journal", (tmp_path / "output").open("wb")
    journal = Journal(path, {"output": output.fileno()})
    for number in range(3):
        journal.finished(number, "output", PieceReport(0.1 * number, 1e-30), 10)
    journal.close(flush=True)
    path.write_bytes(path.read_bytes() + b"[3, 0.")
    assert read_journal(path) == {number: PieceReport(0.1 * number, 1e-30) for number in range(3)}
    again = Journal(path, {"output": output.fileno()})
    again.finished(7, "output", PieceReport(1.0, 2.0), 10)
    again.close(flush=True)
    assert read_journal(path).keys() == {0, 1, 2, 7}
    dropped = Journal(path, {"output": output.fileno()})
    dropped.finished(8, "output", PieceReport(1.0, 2.0), 10)
    dropped.close(flush=False)
    assert read_journal(path).keys() == {0, 1, 2, 7}
    output.close()


def test_the_journal_flushes_by_itself_and_tells_of_errors(tmp_path: Path) -> None:
    output = (tmp_path / "output").open("wb")
    journal = Journal(tmp_path / "journal", {"output": output.fileno()})
    output.close()
    journal.finished(0, "output", PieceReport(0.0, 0.0), 100 << 20)
    with pytest.raises(OSError, match="Bad file descriptor"):
        for number in range(1, 10_000):
            journal.finished(number, "output", PieceReport(0.0, 0.0), 100 << 20)
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.close(flush=True)


def test_there_is_no_journal_before_the_first_run(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal") == {}


def test_jobs_finish_in_order_and_the_first_error_stops_all() -> None:
    done: list[int] = []

    def work(state: list[int], job: int) -> int:
        if job == 40:
            raise ValueError("job 40")
        done.append(job)
        return job * job

    found = []
    with pytest.raises(ValueError, match="job 40"):
        for job, result in in_order(range(10_000), list, work, 3):
            found.append((job, result))
    assert found == [(job, job * job) for job in range(40)]
    assert len(done) < 200


def test_an_interrupt_while_a_thread_starts_leaves_no_job_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def work(state: list[int], job: int) -> None:
        time.sleep(0.2)
        done.append(job)

    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(in_order(range(5), list, work, 2))
    before = len(done)
    time.sleep(0.5)
    assert len(done) == before <= 1


def test_threads_leave_torchs_own_as_they_were() -> None:
    before = torch.get_num_threads()
    seen = [result for _, result in in_order(range(8), list, lambda state, job: torch.get_num_threads(), 2)]
    assert set(seen) == {1}
    assert torch.get_num_threads() == before


def test_the_number_of_threads() -> None:
    assert 1 <= thread_count(None) <= DEFAULT_MOST
    assert thread_count(5) == 5
    with pytest.raises(am.AlignmendError, match="threads is a number from 1 to 256, not 257"):
        thread_count(257)


def test_files_that_cannot_be_read_are_named(pair: list[Path]) -> None:
    entry = am.open(pair[0]).root.folder.tensors["model.a"]
    with Files() as files, pytest.raises(FileFormatError, match=r"became shorter while model.a was read"):
        entry.path.write_bytes(b"short")
        Evaluator(files).decode(entry, 0, 10)
    entry.path.unlink()
    entry.path.mkdir()
    with Files() as files, pytest.raises(FileFormatError, match=r"cannot read model\.a: Is a directory"):
        Evaluator(files).decode(entry, 0, 10)
    entry.path.rmdir()
    with Files() as files, pytest.raises(FileFormatError, match=r"can no longer be opened: No such file"):
        Evaluator(files).decode(entry, 0, 10)
