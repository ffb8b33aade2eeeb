"""Tied embeddings: one weight, stored once or twice, under either name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from alignmend.algebra.names import input_embedding, output_embedding
from alignmend.algebra.problems import Problems
from alignmend.io.folder import CheckpointFolder
from alignmend.io.same_values import same_values
from alignmend.io.tensors import TensorEntry


def lookup(folder: CheckpointFolder, target: CheckpointFolder, name: str) -> TensorEntry | None:
    """The entry of `folder` for the target's tensor `name`; a tied embedding may lie under its partner's name.

    The head of a model that ties its embeddings is its embedding, also for a target that has two weights.
    """
    found = folder.tensors.get(name)
    if found is not None or not folder.tied:
        return found
    names = tuple(target.tensors)
    partners = (input_embedding(names), output_embedding(names))
    if name not in partners:
        return None
    own = tuple(folder.tensors)
    partner = input_embedding(own) or output_embedding(own)
    return folder.tensors[partner] if partner is not None else None


def tied_alias(folder: CheckpointFolder) -> Mapping[str, str]:
    """Output embedding -> input embedding, where a tied checkpoint stores both; the pair counts once in rankings."""
    names = tuple(folder.tensors)
    head, embedding = output_embedding(names), input_embedding(names)
    if not folder.tied or head is None or embedding is None:
        return {}
    return {head: embedding} if folder.tensors[head].shape == folder.tensors[embedding].shape else {}


def check_tying(target: CheckpointFolder, folder: CheckpointFolder, problems: Problems) -> None:
    """Report a target whose one weight would have to move as two of the other do."""
    if target.tied and not folder.tied and _stores_both(target) and _stores_both(folder):
        problems.add(
            f"{target.location} ties its output head to its input embedding, {folder.location} does not: "
            "save both with the same tie_word_embeddings"
        )


def _stores_both(folder: CheckpointFolder) -> bool:
    names = tuple(folder.tensors)
    return output_embedding(names) is not None and input_embedding(names) is not None


def as_tied(folder: CheckpointFolder, target: CheckpointFolder) -> CheckpointFolder:
    """`folder` as one that ties its embeddings, where the target does and its own two copies hold the same values."""
    names = tuple(folder.tensors)
    head, embedding = output_embedding(names), input_embedding(names)
    if folder.tied or not target.tied or head is None or embedding is None:
        return folder
    equal = same_values(folder.tensors[head], folder.tensors[embedding])
    return replace(folder, tied=True) if equal else folder


def tying_hint(name: str, having: CheckpointFolder, lacking: CheckpointFolder) -> str:
    """What an error about a tensor that `lacking` lacks may add: that only one of the two ties its embeddings."""
    if name == output_embedding(tuple(having.tensors)) and having.tied != lacking.tied:
        return f" (only {lacking.location if lacking.tied else having.location} ties its embeddings)"
    return ""


def is_tied_copy(name: str, folder: CheckpointFolder, target: CheckpointFolder) -> bool:
    """Whether `name` is a stored duplicate of an embedding that both sides tie."""
    return (
        folder.tied
        and target.tied
        and name in (output_embedding(tuple(folder.tensors)), input_embedding(tuple(folder.tensors)))
    )
