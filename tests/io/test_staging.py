"""An output folder appears whole or not at all, whatever happens, and one run at a time writes it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from alignmend.errors import OutputError
from alignmend.io.staging import check_space, staging


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(final: Path, text: str, *, key: str = "k", resume: bool = False, overwrite: bool = False) -> bool:
    with staging(final, key=key, resume=resume, overwrite=overwrite) as stage:
        (stage.path / "file").write_text(text)
        (stage.work / "notes").write_text("n")
        stage.publish(overwrite)
        return stage.resumed


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "no parent"])
def test_the_folder_appears(before: str, tmp_path: Path) -> None:
    final = tmp_path / "deep" / "out" if before == "no parent" else tmp_path / "out"
    if before == "an empty folder":
        final.mkdir()
    assert not fill(final, "text")
    assert (final / "file").read_text() == "text"
    assert names(final.parent) == ["out"]


def test_what_exists_is_kept_unless_overwriting(tmp_path: Path) -> None:
    fill(tmp_path / "out", "first")
    with pytest.raises(OutputError, match="out exists and is not empty: choose another folder, or pass --overwrite"):
        fill(tmp_path / "out", "second")
    assert (tmp_path / "out" / "file").read_text() == "first"
    (tmp_path / "out" / "stale").write_text("from the first run")
    fill(tmp_path / "out", "second", overwrite=True)
    assert names(tmp_path / "out") == ["file"]
    assert (tmp_path / "out" / "file").read_text() == "second"
    assert names(tmp_path) == ["out"]


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out exists and is not a folder"):
        fill(tmp_path / "out", "text", overwrite=True)
    assert (tmp_path / "out").read_text() == "a file"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "kept", "first")
    for final in (tmp_path / "out", tmp_path / "kept"):
        with pytest.raises(ValueError, match="inside"), staging(final, key="k", overwrite=True) as stage:
            (stage.path / "file").write_text("half")
            raise ValueError("inside")
    assert names(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "file").read_text() == "first"


def interrupted(final: Path, key: str = "k") -> None:
    with pytest.raises(KeyboardInterrupt), staging(final, key=key) as stage:
        (stage.path / "half").write_text("half")
        raise KeyboardInterrupt


def test_an_interruption_leaves_what_resume_needs(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert fill(tmp_path / "out", "rest", resume=True)
    assert names(tmp_path / "out") == ["file", "half"]
    assert names(tmp_path) == ["out"]


def test_without_resume_a_run_begins_anew(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    assert not fill(tmp_path / "out", "all")
    assert names(tmp_path / "out") == ["file"]


def test_resuming_nothing_begins(tmp_path: Path) -> None:
    assert not fill(tmp_path / "out", "all", resume=True)


def test_only_the_same_run_is_resumed(tmp_path: Path) -> None:
    interrupted(tmp_path / "out", key="other")
    with pytest.raises(OutputError, match=r"an unfinished run for .*out has other inputs or options"):
        fill(tmp_path / "out", "rest", resume=True)
    assert fill(tmp_path / "out", "rest", key="other", resume=True)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with staging(tmp_path / "out", key="k") as stage:
        (stage.path / "file").write_text("first")
        program = f"""
            from pathlib import Path
            from alignmend.io.staging import staging
            with staging(Path({str(tmp_path / "out")!r}), key="k", resume=True) as stage:
                stage.publish(False)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
        )
        assert "OutputError: another run is writing" in done.stderr
        assert (stage.path / "file").read_text() == "first"
        stage.publish(overwrite=False)
    assert names(tmp_path / "out") == ["file"]
    assert names(tmp_path) == ["out"]


def test_a_lock_without_a_holder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".out.alignmend-work").mkdir()
    (tmp_path / ".out.alignmend-work" / ".lock").write_text("")
    fill(tmp_path / "out", "text")
    assert names(tmp_path) == ["out"]


def test_a_lock_that_is_held_is_respected_and_left(tmp_path: Path) -> None:
    work = tmp_path / ".out.alignmend-work"
    work.mkdir()
    with (work / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match=r"another run is writing .*out: wait for it"):
            fill(tmp_path / "out", "text")
        assert (work / ".lock").exists()
    fill(tmp_path / "out", "text")


KILLED = """
import os, signal, sys
from pathlib import Path
from alignmend.io.staging import staging
count = int(sys.argv[2])
real = Path.rename
def rename(self, target):
    global count
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    count -= 1
    return real(self, target)
Path.rename = rename
with staging(Path(sys.argv[1]), key="k", overwrite=True) as stage:
    (stage.path / "file").write_text("second")
    stage.publish(True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_around_the_renames_of_an_overwrite_loses_nothing(renames: int, tmp_path: Path) -> None:
    final = tmp_path / "out"
    fill(final, "first")
    done = subprocess.run([sys.executable, "-c", KILLED, str(final), str(renames)], check=False)
    assert done.returncode == -signal.SIGKILL
    if final.exists():
        assert (final / "file").read_text() == ("first" if renames == 0 else "second")
    else:
        assert renames == 1
    if renames < 2:
        with pytest.raises(OutputError, match="exists and is not empty"):
            fill(final, "third")
        assert (final / "file").read_text() == "first"
        assert fill(final, "third", resume=True, overwrite=True)
        assert (final / "file").read_text() == "third"
    assert names(tmp_path) == ["out"]


MEDDLED = """
import os, shutil, sys
from pathlib import Path
from alignmend.errors import OutputError
from alignmend.io.staging import staging
final, deed, overwrite = Path(sys.argv[1]), sys.argv[2], len(sys.argv) > 3
seen = False

def meddle(event, arguments):  # just before the folder gets its final name, as another process could
    global seen
    if event == "os.rename" and not seen and str(arguments[1]) == str(final):
        seen = True
        if deed == "the new folder is moved away":
            os.rename(arguments[0], final.parent / "elsewhere")
        elif deed == "a file is put there":
            final.write_text("theirs")
        else:
            final.mkdir()
            (final / "file").write_text("theirs")

sys.addaudithook(meddle)
try:
    with staging(final, key="k", overwrite=overwrite) as stage:
        (stage.path / "file").write_text("second")
        stage.publish(overwrite)
except OutputError as error:
    sys.exit(str(error))
"""


def meddled(final: Path, deed: str, *options: str) -> str:
    """The error of a run beside which something else happens between its two renames."""
    command = [sys.executable, "-c", MEDDLED, str(final), deed, *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_was_replaced_is_put_back_where_the_new_cannot_be_put_in_its_place(tmp_path: Path) -> None:
    final = tmp_path / "out"
    fill(final, "first")
    assert "cannot write" in meddled(final, "the new folder is moved away", "--overwrite")
    assert (final / "file").read_text() == "first"
    assert names(tmp_path) == ["elsewhere", "out"]


@pytest.mark.parametrize("deed", ["a folder is put there", "a file is put there"])
def test_what_was_replaced_is_kept_where_something_else_took_its_place(deed: str, tmp_path: Path) -> None:
    final = tmp_path / "out"
    fill(final, "first")
    error = meddled(final, deed, "--overwrite")
    (kept,) = (path for path in tmp_path.iterdir() if path != final)
    assert f"what was there before is now at {kept}" in error
    assert (kept / "file").read_text() == "first"
    assert (final if final.is_file() else final / "file").read_text() == "theirs"


@pytest.mark.parametrize("deed", ["a folder is put there", "a file is put there"])
def test_what_takes_a_free_name_meanwhile_stays(deed: str, tmp_path: Path) -> None:
    final = tmp_path / "out"
    assert "cannot write" in meddled(final, deed)
    assert (final if final.is_file() else final / "file").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with (
        pytest.raises(OutputError, match="appeared while this run was writing"),
        staging(final, key="k") as stage,
    ):
        final.mkdir()
        (final / "theirs").write_text("x")
        stage.publish(overwrite=False)
    assert names(final) == ["theirs"]
    assert names(tmp_path) == ["out"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    fill(tmp_path / "out", "text")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "text"


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="holds the current or the home folder"):
        fill(tmp_path, "text", overwrite=True)


def said_by_somebody(final: Path) -> str:
    """What a run says that is not the superuser's, who may write anywhere."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            fill(final, "text")
            os.write(writing, b"written")
        except OutputError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return os.read(reading, 10_000).decode()


def test_a_read_only_parent_is_one_clear_error() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        assert said_by_somebody(Path(folder) / "out").startswith(f"cannot write {folder}/out: Permission denied")
        assert names(Path(folder)) == []
        Path(folder).chmod(0o777)
        assert said_by_somebody(Path(folder) / "out") == "written"


def test_a_parent_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*: (Not a directory|File exists)"):
        fill(tmp_path / "file" / "out", "text")


def test_a_name_too_long_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        fill(tmp_path / ("x" * 250), "text")
    assert names(tmp_path) == []


def test_a_place_that_takes_no_folders_is_one_clear_error() -> None:
    with pytest.raises(OutputError, match=r"cannot write /proc/alignmend/out: No such file or directory"):
        fill(Path("/proc/alignmend/out"), "text")


def test_too_little_space_is_told_before_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the output needs 1000 TB and the disk that holds .* free"):
        check_space(tmp_path, 10**15)
    check_space(tmp_path, 1)
