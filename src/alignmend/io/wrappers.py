"""Module names that training tools put around a model's own, and that come with its tensors' names when it is saved."""

from __future__ import annotations

import re

_ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Of torch.compile, FSDP, activation checkpointing and DeepSpeed."""
_IN_FRONT = re.compile(r"^(?:base_model\.model\.|module\.)")
"""Of PEFT and of torch's parallel modules."""
_NESTED = 4
"""Wrappers of one kind in a name, at the most."""


def unwrapped(name: str) -> str:
    """A tensor's name without wrappers."""
    found = ".".join(part for part in name.split(".") if part not in _ANYWHERE)
    return _IN_FRONT.sub("", found)


def wrapper_patterns() -> dict[str, str]:
    """The same as `key_mapping` of `from_pretrained`, where each pattern is replaced once."""
    nested = {rf"{name}\.{'(?=)' * depth}": "" for name in sorted(_ANYWHERE) for depth in range(_NESTED)}
    return nested | {_IN_FRONT.pattern: ""}
