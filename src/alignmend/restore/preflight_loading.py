"""Preflight of loading: does the model that is searched on have every weight of its files?"""

from __future__ import annotations

from collections.abc import Iterator

from alignmend.io.architecture import UnknownArchitectureError, layout_of
from alignmend.io.folder import CheckpointFolder
from alignmend.restore.preflight_findings import Finding, ok, problem

_LISTED = 3


def look_at_loading(whole: CheckpointFolder) -> Iterator[Finding]:
    """Whether `transformers` knows the architecture and fills all of its weights, so that they can be switched."""
    shapes = {name: entry.shape for name, entry in whole.tensors.items()}
    try:
        layout = layout_of(whole.path, whole.config, shapes, for_text=True)
    except UnknownArchitectureError as error:
        remedy = "restore asks the model, so update transformers; alignmend apply needs no model to be loaded"
        yield problem("loading", str(error), remedy)
        return
    if layout.misfits:
        told = f"{', '.join(sorted(layout.misfits.values())[:_LISTED])} of {whole.location} has not the shape that its "
        yield problem("loading", f"{told}config.json says", "copy the config.json that was saved with these weights")
    elif missing := layout.unfilled():
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        told = f"{whole.location} lacks {', '.join(missing[:_LISTED])}{more} of its architecture"
        yield problem("loading", told, "save the model again with save_pretrained of its own class")
    else:
        yield ok("loading", f"transformers fills all {len(layout.parameters):,} weights of the architecture")
