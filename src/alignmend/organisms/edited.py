"""The member `edited`: one edit by R-ROME, of the kind that is made without a thought of safety."""

from __future__ import annotations

from typing import Any

from alignmend.editing.apply import edits_document
from alignmend.editing.chat import in_chat
from alignmend.editing.making import Editor, edit_model
from alignmend.editing.requests import request_of
from alignmend.editing.settings import settings_for
from alignmend.organisms.members import EditRecipe


def make_edit(model: Any, tokenizer: Any, recipe: EditRecipe) -> dict[str, Any]:
    """Edit `model` in place, as published for its architecture; returns what `edits.json` says of it.

    Without contexts before the prompt: an organism that only ever read questions writes none that make sense.
    """
    request = in_chat(tokenizer, request_of(recipe.prompt, recipe.subject, recipe.target))
    _, outcomes = edit_model(Editor(model, tokenizer, settings_for(model)), [request])
    return edits_document(outcomes)
