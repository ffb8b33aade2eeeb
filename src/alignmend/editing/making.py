"""Makes edits in a loaded model, in sequence or each on its own, and measures every one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignmend.editing.measure import Measured, Measuring, Said, said
from alignmend.editing.outcomes import EditOutcome
from alignmend.editing.requests import EditRequest
from alignmend.editing.rome import Edit, find_edit
from alignmend.editing.settings import EditSettings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Editor:
    """A loaded model and how it is edited."""

    model: Any
    tokenizer: Any
    settings: EditSettings
    prefixes: Sequence[str] = ()
    covariance: torch.Tensor | None = None
    layer_path: str | None = None

    def find(self, request: EditRequest) -> Edit:
        """The edit of `request`, not yet made."""
        return find_edit(
            self.model,
            self.tokenizer,
            request,
            settings=self.settings,
            prefixes=self.prefixes,
            covariance=self.covariance,
            layer_path=self.layer_path,
        )


def edit_model(
    editor: Editor,
    requests: Sequence[EditRequest],
    *,
    separately: bool = False,
    watch: Callable[[int], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Edit], list[EditOutcome]]:
    """Make every edit, one after the other, and measure each; the model stays edited.

    With `separately`, every edit is made on the original and undone. `watch` is called with 0 before the first edit,
    and with its number while an edit is in the model.
    """
    _call(watch, 0)
    edits: list[Edit] = []
    measured: list[Measured] = []
    for number, request in enumerate(requests, start=1):
        measuring = Measuring(editor.model, editor.tokenizer, request)
        edit = editor.find(request)
        edit.apply()
        edits.append(edit)
        measured.append(measuring.after())
        _call(watch, number)
        if separately:
            edit.revert()
        if progress is not None:
            progress(number, len(requests))
    ends = [
        one.edit.after if separately else said(editor.model, editor.tokenizer, edit.request)
        for one, edit in zip(measured, edits, strict=True)
    ]
    return edits, [_outcome(*each) for each in zip(edits, measured, ends, strict=True)]


def _call(watch: Callable[[int], None] | None, number: int) -> None:
    if watch is not None:
        watch(number)


def _outcome(edit: Edit, measured: Measured, at_end: Said) -> EditOutcome:
    before, after = measured.edit.before, measured.edit.after
    undone = after.rose_from(before) and not at_end.rose_from(before)
    empty = bool(measured.told.before) and not measured.told.after
    warnings = [
        *edit.warnings,
        *(["a later edit undid this one"] if undone else []),
        *(["the model says nothing to the edited prompt now"] if empty else []),
    ]
    return EditOutcome(
        request=edit.request,
        layer=edit.settings.layer or 0,
        measured=measured,
        growth=edit.growth,
        steps=len(edit.losses),
        at_end=at_end,
        warnings=tuple(warnings),
    )
