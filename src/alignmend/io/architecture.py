"""What `transformers` makes of a checkpoint's tensors: its own renamings and conversions, followed without any weight.

The model is built without memory (on torch's device `meta`), its conversions run on tensors without memory, and every
operation on the way is written down as what it does to the places of elements.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignmend.io.arrays import Shape
from alignmend.io.layout import Layout
from alignmend.io.wrappers import unwrapped


class UnknownArchitectureError(Exception):
    """`transformers` is not installed, or does not know the model by itself; says which."""


@dataclass(frozen=True)
class Architecture:
    """The model of a `config.json`, as `transformers` builds it. Every method raises `UnknownArchitectureError`."""

    folder: Path
    config: Mapping[str, object] = field(hash=False)

    def layout(self, tensors: Mapping[str, Shape]) -> Layout:
        """The layout of tensors (name -> shape) that are stored for it."""
        return layout_of(self.folder, self.config, tensors)

    def parameters_of(self, module: str) -> tuple[tuple[str, Shape], ...]:
        """The own parameters of a module, in the order in which it has them; none where there is no such module."""
        found = self._module(module)
        own = () if found is None else found.named_parameters(recurse=False)
        return tuple((f"{module}.{name}", tuple(parameter.shape)) for name, parameter in own)

    def is_transposed(self, module: str) -> bool:
        """Whether the module's stacked weights are [expert, in, out]."""
        return bool(getattr(self._module(module), "is_transposed", False))

    def _module(self, name: str) -> Any:
        described = json.dumps(self.config, sort_keys=True, default=str)
        try:
            return _empty_model(self.folder, described, False).get_submodule(name)
        except AttributeError:
            return None


def layout_of(
    folder: Path, config: Mapping[str, object], tensors: Mapping[str, Shape], *, for_text: bool = False
) -> Layout:
    """The layout of stored `tensors` (name -> shape) in the model of the `config.json` in `folder`, which is `config`.

    `for_text` takes the class that `text_class` loads, not the one that the checkpoint was saved from.
    Raises `UnknownArchitectureError` where `transformers` cannot tell without code from elsewhere.
    """
    described = json.dumps(config, sort_keys=True, default=str)
    return _layout(folder, described, tuple(sorted(tensors.items())), for_text)


@lru_cache(maxsize=8)
def _layout(folder: Path, config: str, tensors: tuple[tuple[str, Shape], ...], for_text: bool) -> Layout:
    return follow(_empty_model(folder, config, for_text), dict(tensors))


@lru_cache(maxsize=2)
def _empty_model(folder: Path, config: str, for_text: bool) -> Any:
    """The model that a config describes, without memory for its weights."""
    if find_spec("transformers") is None or find_spec("torch") is None:
        raise UnknownArchitectureError("transformers is not installed: pip install 'alignmend[evaluate]'")
    import torch
    from transformers.initialization import no_init_weights

    try:
        with _silent(), no_init_weights(), torch.device("meta"):
            described = known_config(folder, json.loads(config))
            if for_text:  # which may take the part of the config that is about text
                return text_class(described).from_config(described, trust_remote_code=False).eval()
            return model_class(described)._from_config(described).eval()
    except UnknownArchitectureError:
        raise
    except Exception as error:  # what the library makes of a config that is not sound
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnknownArchitectureError(
            f"transformers cannot build the model of its config.json ({reason[0]})"
        ) from None


def known_config(folder: Path, fields: Mapping[str, object]) -> Any:
    """The `config.json` in `folder`, read by the library's own class for it; code from elsewhere is never run."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise UnknownArchitectureError(f"transformers does not know the model_type {kind!r} by itself")
    return CONFIG_MAPPING[kind].from_pretrained(str(folder), trust_remote_code=False)


def model_class(config: Any) -> Any:
    """The class that a checkpoint was saved from, where it says so; else the one for text, or for images and text."""
    import transformers

    for name in config.architectures or ():
        found = getattr(transformers, str(name), None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText, transformers.AutoModel):
        if type(config) in auto._model_mapping:
            found = auto._model_mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    raise UnknownArchitectureError(f"transformers has no model for {type(config).__name__}")


def text_class(config: Any) -> Any:
    """The automatic class that loads the model of a config to answer text.

    That is the library's class for text; for a model of images and text that has none, the one for both.
    """
    import transformers

    automatic = (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText)
    found = next((auto for auto in automatic if type(config) in auto._model_mapping), None)
    return found or automatic[0]


def follow(model: Any, tensors: Mapping[str, Shape]) -> Layout:
    """The layout of stored `tensors` in `model`, which may have weights or not."""
    from alignmend.io.conversion import convert

    with _silent():
        return convert(model, {name: (unwrapped(name), shape) for name, shape in tensors.items()})


@contextmanager
def _silent() -> Iterator[None]:
    """No warnings of the library: nothing is loaded here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
