"""Preflight of the structure: architecture, vocabulary, tied embeddings and dtypes, from configs and headers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from alignmend.algebra.names import input_embedding
from alignmend.io.folder import CheckpointFolder
from alignmend.io.tensors import ARITHMETIC_DTYPES
from alignmend.restore.preflight_findings import Finding, note, ok, problem

_SHAPE_KEYS = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "n_embd", "n_layer", "n_head",
)  # fmt: skip
ONE_PARENT = "give as --aligned the very model that the fine-tune was made from"
"""What to do about models that are strangers."""


def look_at_structure(tuned: CheckpointFolder, parent: CheckpointFolder) -> Iterator[Finding]:
    """What the configs and the headers of two whole checkpoints say, before any weight is read."""
    ours, theirs = _text_config(tuned), _text_config(parent)
    nameless = [folder for folder in (tuned, parent) if "model_type" not in folder.config]
    if nameless:
        told = f"{nameless[0].location} has no config.json that names its model_type, so it cannot be loaded"
        yield problem(
            "architecture", told, "copy the config.json of the model that it was trained from beside its weights"
        )
        return
    apart = [key for key in _SHAPE_KEYS if key in ours and key in theirs and ours[key] != theirs[key]]
    if apart:
        told = ", ".join(f"{key} {ours[key]} against {theirs[key]}" for key in apart)
        yield problem("architecture", f"fine-tune and aligned model differ: {told}", ONE_PARENT)
    else:
        yield ok("architecture", f"{ours['model_type']}, the same in both")
    yield from _vocabulary(tuned, parent)
    yield _tied(tuned, parent)
    yield _dtypes(tuned, parent)


def _text_config(folder: CheckpointFolder) -> Mapping[str, object]:
    inner = folder.config.get("text_config")
    return {**folder.config, **inner} if isinstance(inner, Mapping) else folder.config


def _vocabulary(tuned: CheckpointFolder, parent: CheckpointFolder) -> Iterator[Finding]:
    sizes = [_rows(one) for one in (tuned, parent)]
    if None in sizes:
        return
    if sizes[0] == sizes[1]:
        yield ok("vocabulary", f"{sizes[0]:,} tokens in both")
        return
    yield problem(
        "vocabulary",
        f"the fine-tune has {sizes[0]:,} rows of embeddings, the aligned model {sizes[1]:,}",
        "resize the fine-tune's embeddings to the aligned model's (model.resize_token_embeddings) and save it again, "
        "or apply a recipe with  common_rows: true, which leaves the further rows alone",
    )


def _rows(folder: CheckpointFolder) -> int | None:
    name = input_embedding(tuple(folder.tensors))
    return None if name is None else folder.tensors[name].shape[0]


def _tied(tuned: CheckpointFolder, parent: CheckpointFolder) -> Finding:
    words = {True: "tied", False: "not tied"}
    if tuned.tied == parent.tied:
        return ok("tied embeddings", f"{words[tuned.tied]} in both")
    return problem(
        "tied embeddings",
        f"{words[tuned.tied]} in the fine-tune, {words[parent.tied]} in the aligned model",
        "save both with the same tie_word_embeddings",
    )


def _dtypes(tuned: CheckpointFolder, parent: CheckpointFolder) -> Finding:
    ours, theirs = ({entry.dtype for entry in one.tensors.values()} for one in (tuned, parent))
    if wide := sorted((ours | theirs) & {"F64"}):
        remedy = "convert the weights to bfloat16, float16 or float32"
        return problem("dtype", f"weights in {wide[0]}, which the arithmetic does not read", remedy)
    ours, theirs = ours & ARITHMETIC_DTYPES, theirs & ARITHMETIC_DTYPES
    told = "/".join(sorted(ours))
    if ours == theirs:
        return ok("dtype", f"{told} in both")
    return note("dtype", f"{told}, and {'/'.join(sorted(theirs))} in the aligned model: computed in float32")
