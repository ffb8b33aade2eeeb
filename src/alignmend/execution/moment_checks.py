"""What to know of the moments that an expression is weighed by: too few texts, none of a kind, another model's."""

from __future__ import annotations

from collections.abc import Iterator

from alignmend.algebra.nodes import MomentsSource
from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import adapters_of, stored_deltas_of
from alignmend.algebra.weighing import weightings_of
from alignmend.execution.files import Files
from alignmend.execution.kinship import fingerprint
from alignmend.io.moments import MomentsFile, MomentsRecord

ENOUGH_HARMFUL = 240
"""Texts with which over-refusal fell in every trial on organisms (150 on one real model); with 48 it did not."""
ENOUGH_HARMLESS = 32
"""Texts of each other kind with which it did; with 16 it did not."""


def moments_of(checkpoint: Checkpoint) -> tuple[MomentsFile, ...]:
    """Every file of moments in an expression, each once."""
    weightings = weightings_of(checkpoint.change) if checkpoint.change is not None else ()
    sources: dict[MomentsSource, None] = dict.fromkeys(weighting.moments for weighting in weightings)
    return tuple(source.file for source in sources)


def few_texts(record: MomentsRecord) -> Iterator[str]:
    """What the moments were taken over too few texts of."""
    for kind, texts in record.kinds.items():
        enough = ENOUGH_HARMFUL if kind == "harmful" else ENOUGH_HARMLESS
        if texts.texts < enough:
            yield (
                f"moments over {texts.texts} {kind} texts are noisy: {enough} or more of this kind have been seen to "
                "lower over-refusal; take more texts, or try shrinkage 'oas'"
            )
    if "borderline" not in record.kinds:
        yield (
            "there are no moments of borderline texts (harmless ones that sound harmful): without them weighing has "
            "not been seen to lower over-refusal"
        )


def fingerprints(checkpoint: Checkpoint) -> dict[str, str]:
    """What a model is known by: a hash of samples of its root, and of the adapter or delta on it."""
    found = {"model": fingerprint(checkpoint.root.folder.tensors)}
    if checkpoint.change is not None:
        headers = [header for adapter in adapters_of(checkpoint.change) for header in adapter.adapter.adapter.headers]
        headers += [delta.stored.folder.header for delta in stored_deltas_of(checkpoint.change)]
        for number, header in enumerate(headers):
            found[f"part {number}" if number else "part"] = fingerprint(header.entries)
    return found


def of_another_model(file: MomentsFile, model: Checkpoint) -> str | None:
    """What is wrong where the moments were not taken in `model`; reads a few blocks of its files."""
    if file.record.fingerprints == fingerprints(model):
        return None
    return (
        f"the moments {file.location} were not taken in {model.root.folder.location} as it is now: take them in the "
        "model that is to be made safe, with  alignmend moments"
    )


def moment_warnings(checkpoint: Checkpoint, files: Files | None) -> tuple[str, ...]:
    """What to warn of; without `files` nothing is read, and another model goes unseen."""
    found: dict[str, None] = {}
    for file in moments_of(checkpoint):
        found.update(dict.fromkeys(few_texts(file.record)))
        known = file.record.fingerprints.get("model")
        if files is not None and known != fingerprint(checkpoint.root.folder.tensors):
            location = checkpoint.root.folder.location
            found[f"the moments {file.location} were taken in another model than {location}, which is changed"] = None
    return tuple(found)
