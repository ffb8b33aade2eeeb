"""The edge of the program: whatever is raised becomes one message and an exit code, never a traceback on the screen."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Callable

from alignmend.errors import AlignmendError, OutputError, is_out_of_memory

_INTERRUPTED = 130
_WRONG = 2
_NO_THREAD = "can't start new thread"


def guarded(run: Callable[[], int], arguments: Namespace) -> int:
    """The exit code of `run`; what it raises is told on standard error in the command's name."""
    name = f"alignmend {arguments.command}"
    try:
        return run()
    except AlignmendError as error:
        tell(f"{name}: {_told(error)}")
    except KeyboardInterrupt:
        tell(f"\n{name}: interrupted{arguments.interrupted}")
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        known = explained(error)
        tell(f"{name}: {unforeseen(error) if known is None else known}{arguments.interrupted}")
    return _WRONG


def explained(error: BaseException) -> str | None:
    """What a fault of the machine means and what to do; `None` for any other."""
    if is_out_of_memory(error):
        said = (str(error).splitlines() or [""])[0]
        said = f" ({said})" if said else ""
        return f"out of memory{said}: free memory, or use a smaller model or another --device"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files: raise the limit (ulimit -n 4096) and run again"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the disk{_of(error)}: free space and run again"
    if isinstance(error, UnicodeEncodeError) and is_not_utf8(error.object):
        return f"{_around(error)} is not UTF-8: rename that file or folder"
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return "no further thread can be started: raise the limit (ulimit -u), or use fewer threads (OMP_NUM_THREADS=1)"
    return None


def is_not_utf8(text: str) -> bool:
    """Whether Python read `text`, such as a path, from bytes that are no UTF-8."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _around(error: UnicodeEncodeError) -> str:
    """The word with the first such byte."""
    before, after = error.object[: error.start].split(), error.object[error.start :].split()
    return f"{before[-1] if before and not error.object[error.start - 1].isspace() else ''}{after[0]}"


def unforeseen(error: BaseException) -> str:
    """One line for an error that nothing else has told, with the file that holds its traceback."""
    said = " ".join(str(error).split())[:300]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    place = _written(error)
    kept = f"its traceback is in {place}" if place else "its traceback could not be written anywhere"
    return f"this failed in a way that alignmend does not know ({what}); {kept}"


def _told(error: AlignmendError) -> str:
    """What was raised on purpose; where too many open files caused it, whatever it took that for."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.EMFILE, errno.ENFILE):
            return str(explained(seen))
        seen = seen.__cause__ or seen.__context__
    return str(error)


def _of(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _written(error: BaseException) -> str | None:
    """The new file, for its owner alone, that holds the traceback; `None` where none can be made."""
    text = "".join(traceback.format_exception(error))
    for folder in (tempfile.gettempdir, os.getcwd):
        try:
            descriptor, path = tempfile.mkstemp(prefix="alignmend-traceback-", suffix=".txt", dir=folder())
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return path
    return None


def tell(message: str) -> None:
    """On standard error, if it can take it."""
    try:
        print(message, file=sys.stderr, flush=True)
    except (OSError, OutputError):
        return  # nobody can be told; the exit code tells
