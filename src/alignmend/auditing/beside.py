"""What lies beside the weights: code that a loader might run, and templates that are not the parent's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from alignmend.auditing.findings import Finding
from alignmend.io.hub import find

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_LISTED = 5
_TEMPLATES = ("chat_template.jinja", "tokenizer_config.json")


def code_beside(folder: Path, config: Mapping[str, object]) -> Iterator[Finding]:
    """Code of the model's own, and pickles, which run code when they are loaded."""
    named = config.get("auto_map")
    scripts = sorted(path.name for path in folder.glob("*.py"))
    if named or scripts:
        where = ", ".join([*scripts[:_LISTED], *(["auto_map in config.json"] if named else [])])
        yield Finding("code", f"brings code of its own, which trust_remote_code would run: {where}")
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        yield Finding(
            "code", f"holds pickles, which may run code where they are loaded: {', '.join(pickles[:_LISTED])}"
        )


def template_note(model: Path, parent: str | Path) -> str | None:
    """A line where the chat templates differ."""
    own, other = (_template(one) for one in (model, find(parent).path))
    if own == other:
        return None
    return "the chat template is not the parent's: read it, since a template can add text that no user sees"


def _template(path: Path) -> object:
    folder = path if path.is_dir() else path.parent
    for name in _TEMPLATES:
        file = folder / name
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if not name.endswith(".json"):
            return text
        try:
            said = json.loads(text)
        except ValueError:
            return text
        return said.get("chat_template") if isinstance(said, dict) else None
    return None
