"""Loading a model's weights: by the class that answers text, whole, under whatever names tools have wrapped them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError
from alignmend.io.architecture import text_class
from alignmend.io.index import read_headers
from alignmend.io.pretrained import pretrained
from alignmend.io.wrappers import unwrapped, wrapper_patterns

_LISTED = 3


def load_weights(path: Path | str, dtype: str) -> Any:
    """The model of a Hugging Face folder or cached hub id, on the CPU; one for images too is loaded for its text.

    Raises `FileFormatError` where transformers cannot load it, or would leave weights random that its files lack.
    """
    from transformers import AutoConfig

    options = {"key_mapping": wrapper_patterns()} if _has_wrappers(path) else {}
    kind = text_class(pretrained(AutoConfig, path))
    model, report = pretrained(kind, path, dtype=dtype, output_loading_info=True, **options)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if missing := sorted(parameters & set(report["missing_keys"])):
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise FileFormatError(
            f"{path}: its files lack {', '.join(missing[:_LISTED])}{more}, which would be random",
            advice=(
                f"save the model again with save_pretrained of its own class ({type(model).__name__}), or "
                "download it anew"
            ),
        )
    return model


def _has_wrappers(path: Path | str) -> bool:
    folder = Path(path)
    headers = (read_headers(folder) or ()) if folder.is_dir() else ()
    return any(unwrapped(name) != name for header in headers for name in header.entries)
