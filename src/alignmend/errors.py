"""The exception tree: every error this package raises on purpose is an `AlignmendError`.

A message says what is wrong with the values seen, where (tensor, file, recipe line), and what to do; code that needs
one of these takes the attribute and never reads the message. The command line prints the message and exits with 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class AlignmendError(Exception):
    """Root of the tree; catch it to catch everything that is the caller's to fix.

    `problem` says what is wrong, `advice` what to do, `where` names the file, tensor or line, and `option` the keyword
    whose value `problem` is about, such as `batch_size`. The message is `where: option problem: advice`, of what there
    is. A problem that ends in `;` has the advice as its next clause.
    """

    def __init__(self, problem: str = "", *, advice: str = "", where: str = "", option: str = "") -> None:
        self._joint = "; " if advice and problem.endswith(";") else ": "
        self.problem = problem.removesuffix(";") if advice else problem
        self.advice, self.where, self.option = advice, where, option
        super().__init__(self._message())

    def _message(self) -> str:
        return self.statement + (self._joint + self.advice if self.advice else "")

    @property
    def statement(self) -> str:
        """The message without its advice."""
        place = f"{self.where}: " if self.where else ""
        return place + (f"{self.option} {self.problem}" if self.option else self.problem)

    def at(self, where: str, kind: type[AlignmendError] | None = None) -> AlignmendError:
        """The same, as a `kind` of error, with the place where it was met before it."""
        clause = ";" if self.advice and self._joint == "; " else ""
        return (kind or type(self))(self.statement + clause, advice=self.advice, where=where)

    def add(self, text: str) -> None:
        """Put `text` at the end of the message."""
        if self.advice:
            self.advice += text
        else:
            self.problem += text
        self.args = (self._message(),)

    def advise(self, advice: str) -> None:
        """Put `advice` at the end of the message, as its next clause."""
        if not self.advice:
            self._joint = "; "
        self.advice = f"{self.advice}; {advice}" if self.advice else advice
        self.args = (self._message(),)

    def named(self, option: str) -> AlignmendError:
        """The same, of `option` under the name that the user knows it by."""
        clause = ";" if self.advice and self._joint == "; " else ""
        return type(self)(self.problem + clause, advice=self.advice, where=self.where, option=option)


class FileFormatError(AlignmendError):
    """A file is missing, truncated, malformed or hostile."""


class UnsupportedFormatError(AlignmendError):
    """A format that the arithmetic would get wrong (pickled, quantized, unconsolidated); says how to convert it."""


class MismatchError(AlignmendError):
    """Operands do not fit: missing, extra, differently shaped or differently tied tensors, or another base."""


class NotAppliedError(AlignmendError):
    """An edit did not take: the model says its target no more readily than before."""


class NonFiniteError(AlignmendError):
    """NaN or infinity where a finite number is needed; names the tensors."""


class OutputError(AlignmendError):
    """The output cannot be written: it exists, is read-only, is in use, or the disk is full."""


class VerificationError(AlignmendError):
    """A written checkpoint is not what its manifest says."""


class RecipeError(AlignmendError):
    """A recipe, option or data file does not say what it must."""


class ParameterError(AlignmendError, ValueError):
    """A number or name given to an operation or a method is out of its range."""


class EndpointError(AlignmendError):
    """A served model cannot be reached or used; `position` is the place of the failed request among those asked."""

    position: int | None = None


class RefusedRequestError(EndpointError):
    """A server refused a request with a 4xx `status`; `words` is what it said, `code` its code for it, if any.

    `body` is the whole that it said, where it was JSON.
    """

    def __init__(self, message: str, *, status: int, words: str, code: str = "", body: object = None) -> None:
        super().__init__(message)
        self.status, self.words, self.code, self.body = status, words, code, body


class MissingExtraError(AlignmendError):
    """An optional dependency is not installed; names the extra that brings it."""


class SandboxError(AlignmendError):
    """Code that a model wrote cannot be run apart from the user's files on this machine; says why."""


class LayoutError(AlignmendError):
    """An operation on arrays whose result cannot be told box by box; caught where another way remains."""


class NoMemoryError(AlignmendError):
    """Memory ran out, of this machine or of its GPU, and nothing smaller was left to try."""


_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says of a GPU, and of a CPU."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


@contextmanager
def memory_told(what: str, advice: str) -> Iterator[None]:
    """Where memory runs out inside, a `NoMemoryError` that says at what, and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise NoMemoryError(f"out of memory {what}", advice=advice) from error


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """The one message for an optional `package` that `extra` would bring."""
    return MissingExtraError(f"this needs {package}", advice=f"install it with  pip install 'alignmend[{extra}]'")
