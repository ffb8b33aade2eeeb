"""What can be told in seconds before a restore, from headers, a few blocks of weights, and the data files.

Every problem says what to do; nothing is trained, loaded or written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from alignmend.errors import ParameterError
from alignmend.restore.parts import PARTS, Trained
from alignmend.restore.preflight_data import look_at_data, task_overlap
from alignmend.restore.preflight_findings import Finding, Verdict, ok, problem
from alignmend.restore.preflight_kinship import look_at_weights
from alignmend.restore.preflight_loading import look_at_loading
from alignmend.restore.preflight_memory import look_at_memory
from alignmend.restore.preflight_models import Models, look_at_models
from alignmend.restore.preflight_place import look_at_place
from alignmend.restore.preflight_space import look_at_disk, parts_to_make, size_of
from alignmend.restore.preflight_tokenizers import look_at_tokenizers
from alignmend.restore.preflight_ways import look_at_ways
from alignmend.restore.request import Request

__all__ = ["Finding", "Preflight", "Verdict", "preflight", "task_overlap"]

_NEEDED = {"transformers": "evaluate", "tokenizers": "evaluate", "jinja2": "report", "optuna": "search"}
"""Library -> the extra that brings it, for every restore."""
_FOR_TRAINING = {"peft": "train", "accelerate": "train"}


@dataclass(frozen=True)
class Preflight:
    """The rows of the table, and what they are about."""

    findings: tuple[Finding, ...]
    aligned: str | None
    """The parent, given or found; `None` where it is unknown."""
    is_adapter: bool
    """Whether the fine-tune is an adapter."""
    weights_bytes: int
    """Bytes on disk of the whole model under the fine-tune; 0 where it does not open."""
    parameters: int = 0

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Rows that stand in the way."""
        return tuple(one for one in self.findings if one.verdict == "problem")


def preflight(request: Request) -> Preflight:
    """Look at everything that the request names. What is wrong becomes a row, not an error."""
    models, data = look_at_models(request), look_at_data(request)
    unrelated, parts = request.allow_unrelated, _parts(request, is_adapter=models.is_adapter)
    findings = [
        *models.findings,
        *look_at_weights(models.opened, allow_unrelated=unrelated),
        *(() if models.whole is None else look_at_loading(models.whole)),
        *look_at_tokenizers(models.folders, is_adapter=models.is_adapter, allow_unrelated=unrelated),
        *data.findings,
        *look_at_ways(request.prompts),
        *look_at_place(request, models.folders, trains=bool(parts)),
        *_resources(request, models, parts, data.longest),
        *_libraries(parts),
    ]
    size = None if models.whole is None else size_of(models.whole)
    stored, parameters = (0, 0) if size is None else (size.stored, size.parameters)
    return Preflight(tuple(findings), models.aligned, models.is_adapter, stored, parameters)


def _resources(request: Request, models: Models, parts: Sequence[str], longest: int) -> Iterator[Finding]:
    """Disk and memory, where a model says how large it is."""
    if models.whole is None or not request.out.name:
        return
    size = size_of(models.whole)
    yield from look_at_disk(request, size, is_adapter=models.is_adapter)
    yield from look_at_memory(request, size, models.whole.config, parts, longest)


def _parts(request: Request, *, is_adapter: bool) -> tuple[str, ...]:
    """What is made before the search; nothing where the families asked for are a problem themselves."""
    try:
        return parts_to_make(request, is_adapter=is_adapter)
    except ParameterError:
        return ()


def _libraries(parts: Sequence[str]) -> Iterator[Finding]:
    trains = any(isinstance(PARTS[part], Trained) for part in parts)
    needed = _NEEDED | (_FOR_TRAINING if trains else {})
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        told = f"missing: {', '.join(missing)} (extras {', '.join(sorted({needed[name] for name in missing}))})"
        yield problem("libraries", told, "install them:  pip install 'alignmend[restore]'")
    else:
        yield ok("libraries", f"{', '.join(needed)} are installed")
