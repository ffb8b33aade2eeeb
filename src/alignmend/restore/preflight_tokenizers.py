"""Preflight of the tokenizers: do fine-tune and parent read text alike?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from alignmend.io.companions import by_name, decides_template, find_tokenizer_files
from alignmend.io.tokenizers import TokenizerDifference, compare_tokenizers, listed
from alignmend.restore.preflight_findings import Finding, note, ok, problem

_OWN_FILES = ("tokenizer*", "vocab.*", "spiece.model", "tekken.json", "*.tiktoken")


def look_at_tokenizers(folders: Mapping[str, Path], *, is_adapter: bool, allow_unrelated: bool) -> Iterator[Finding]:
    """Whether fine-tune and parent read text alike, from the files beside the weights."""
    tuned, aligned = folders.get("finetuned"), folders.get("aligned")
    if tuned is None or aligned is None:
        return
    home = tuned if _has_tokenizer(tuned) or not is_adapter else aligned
    if not _has_tokenizer(home):
        yield problem("tokenizer", f"{home} has none", "copy the tokenizer's files of the parent into the folder")
        return
    found = compare_tokenizers(aligned, tuned)
    yield _tokens(found or TokenizerDifference(), allow_unrelated)
    home = aligned if is_adapter and _leaves_template(tuned) else tuned
    if found is not None and found.template and home is tuned:
        text = "it differs from the aligned model's: the fine-tune's is used, and kept in the output"
        yield note("chat template", text, "--template names another one")
    elif not _has_template(home):
        yield note("chat template", "none: prompts are put as plain text", "--template names one, such as alpaca")
    else:
        yield ok("chat template", "the same in both")


def _tokens(found: TokenizerDifference, allow_unrelated: bool) -> Finding:
    if found.moved:
        told = f"fine-tune and aligned model give other ids to the same tokens ({listed(found.moved)})"
        verdict = note if allow_unrelated else problem
        return verdict("tokenizer", told, "give the right --aligned: embeddings of other tokens cannot be added")
    parts = [f"further tokens: {listed(found.added)}"] if found.added else []
    parts += [f"tokens that only the aligned model has: {listed(found.missing)}"] if found.missing else []
    parts += [f"different {' and '.join(found.files)}"] if found.files else []
    if parts:
        return note("tokenizer", "; ".join(parts), "make sure that token ids agree")
    return ok("tokenizer", "the same tokens in both")


def _leaves_template(adapter: Path) -> bool:
    """Whether an adapter's folder says nothing of templates, so that the aligned model's stays."""
    return not decides_template(by_name(adapter, find_tokenizer_files(adapter)))


def _has_tokenizer(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in _OWN_FILES)


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and b'"chat_template"' in config.read_bytes()
