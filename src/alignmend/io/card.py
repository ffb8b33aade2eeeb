"""The model card of an output: `README.md` with front matter, made from the manifest alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from alignmend.io.hub import is_hub_id
from alignmend.io.manifest import STEERING_NAME, Input, Manifest, Rounding
from alignmend.io.published import HASHED, is_hidden

CARD_NAME = "README.md"
_MAX_CARD_BYTES = 1_000_000
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*?$", re.DOTALL | re.MULTILINE)
_LICENCE_KEYS = ("license", "license_name", "license_link")


def read_front_matter(folder: Path) -> dict[str, object]:
    """The front matter of the folder's README; empty where there is none, or none that can be understood."""
    try:
        with (folder / CARD_NAME).open("rb") as file:
            text = file.read(_MAX_CARD_BYTES).decode("utf-8", errors="replace")
        match = _FRONT_MATTER.match(text)
        front = yaml.safe_load(match[1]) if match else None
    except (OSError, yaml.YAMLError, RecursionError, ValueError):
        return {}
    return {key: value for key, value in front.items() if isinstance(key, str)} if isinstance(front, Mapping) else {}


def read_licence(folder: Path) -> dict[str, str]:
    """`license`, `license_name`, `license_link`, as far as the front matter of the folder's README has them.

    A README that is missing or cannot be understood says nothing about a licence: the result is empty.
    """
    front = read_front_matter(folder)
    return {key: value for key in _LICENCE_KEYS if isinstance(value := front.get(key), str)}


def read_licences(folders: Iterable[Path]) -> dict[str, str]:
    """The first licence that the README of one of `folders` names, else a LICENSE file in one of them."""
    places = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    if (found := next((one for one in map(read_licence, places) if one), None)) is not None:
        return found
    files = (path for place in places for path in sorted(place.glob("LICEN[CS]E*")) if path.is_file())
    return {} if (file := next(files, None)) is None else {"license": "other", "license_link": file.name}


@dataclass(frozen=True)
class Measured:
    """What was measured of an output: Markdown for its card, and the block that the hub reads."""

    text: str
    model_index: Sequence[Mapping[str, object]]


def model_card(
    manifest: Manifest,
    *,
    name: str,
    licence: Mapping[str, str] | None = None,
    config: Mapping[str, object] | None = None,
    measured: Measured | None = None,
) -> str:
    """The text of `README.md` for an output called `name`.

    `licence` is what `read_licences` found beside the inputs, `config` the target's. The same arguments give the same
    text.
    """
    front = _front_matter(manifest, licence or {}, config or {})
    sections = [
        f"---\n{_yaml(front if measured is None else {**front, 'model-index': [*measured.model_index]})}---",
        f"# {_one_line(name)}",
        *([_PRIVATE_WARNING] if manifest.private else []),
        *([] if measured is None else [measured.text]),
        _what_was_done(manifest),
        _inputs(manifest),
        *([_STEERING] if any(one.file == STEERING_NAME for one in manifest.outputs) else []),
        *_recipe(manifest),
        *([_rounding(manifest.rounding)] if manifest.rounding else []),
        *_notes(manifest.notes),
        _VERIFY,
    ]
    return "\n\n".join(sections) + "\n"


_PRIVATE_WARNING = """> [!CAUTION]
> **Do not publish.** This is a working file of a safety method: it may lack safety training on purpose.
> Keep it on your own machine and delete it when the work is done."""

_STEERING = f"""## Steering vector

`{STEERING_NAME}` belongs to this model: while it answers, the vector is added to its activations.
`alignmend evaluate` and `alignmend.load` do so by themselves; **plain `transformers` and other servers do not**, and
without it the model is less safe than was measured. `alignmend vector bake` writes a vector of the additive form into
the weights."""

_VERIFY = """## How to verify

`alignmend verify` on this folder compares every file with `alignmend.json`, which also names the exact
inputs, the parameters and the versions of the software. The same recipe on the same inputs gives the same
bytes."""


def _front_matter(manifest: Manifest, licence: Mapping[str, str], config: Mapping[str, object]) -> dict[str, object]:
    adapter = _is_adapter(manifest)
    kind = ("lora", "adapter") if adapter else ("model-merging",)
    tags = ["alignmend", "safety", *kind, *(method.name for method in manifest.methods)]
    ancestors = _ancestors(manifest)
    related = {"base_model": ancestors, "base_model_relation": "adapter" if adapter else "merge"}
    return {
        **(related if ancestors else {}),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": pipeline_tag(config),
        "tags": list(dict.fromkeys(tags)),
        **({key: licence[key] for key in _LICENCE_KEYS if key in licence} or {"license": "unknown"}),
    }


def pipeline_tag(config: Mapping[str, object]) -> str:
    """The hub's word for what a model with this `config.json` does."""
    sees = any(key in config for key in ("vision_config", "image_token_id", "image_token_index"))
    return "image-text-to-text" if sees else "text-generation"


def _is_adapter(manifest: Manifest) -> bool:
    return any(one.file == "adapter_config.json" for one in manifest.outputs)


def _ancestors(manifest: Manifest) -> list[str]:
    """Hub ids of the fine-tune and of its parents; of an adapter the model below it alone."""
    ranked = {role: one for role, one in manifest.inputs.items() if _is_model(role) and _on_hub(one)}
    order = [*_DESCENDANTS, *sorted(ranked)]
    found = [ranked[role].location for role in sorted(ranked, key=order.index)]
    if _is_adapter(manifest):
        below = [one.location for role, one in ranked.items() if role.startswith(_BELOW)]
        found = below or found
    return list(dict.fromkeys(found))


_DESCENDANTS = ("finetuned", "target", "edited", "aligned", "base")
_BELOW = ("aligned", "base")


def _is_model(role: str) -> bool:
    """Scores, pairs and vectors are inputs too, but nothing that a hub could show as an ancestor; neither is an
    unaligned model.
    """
    return not (role.endswith(("scores", "pairs", "vector", "moments")) or is_hidden(role))


def _on_hub(one: Input) -> bool:
    # A relative path can read like a hub id, but only what came from the hub has a commit.
    return one.revision is not None and is_hub_id(one.location)


def _short(role: str, one: Input) -> str:
    """A hub id as it is; of a place on a machine no name."""
    if _on_hub(one) and not is_hidden(role):
        return one.location
    return one.location if one.location.startswith(HASHED) else "not on the hub"


def _what_was_done(manifest: Manifest) -> str:
    lines = [
        "## What was done",
        "",
        "The weights of this model were computed from those of other models by arithmetic, tensor by tensor:",
        "",
        _fenced(manifest.expression),
    ]
    for method in manifest.methods:
        paper = f", from *{_one_line(method.title)}*" if method.title else ""
        arxiv = f" ([arXiv:{method.arxiv}](https://arxiv.org/abs/{method.arxiv}))" if method.arxiv else ""
        lines += ["", f"Method: **{_one_line(method.name)}**{paper}{arxiv}."]
        lines += ["", _fenced(method.equation)] if method.equation else []
    if manifest.parameters:
        lines += ["", "Parameters:", "", _fenced(_yaml(manifest.parameters), "yaml")]
    return "\n".join(lines)


def _inputs(manifest: Manifest) -> str:
    rows = [
        f"| {_cell(role)} | {_cell(_short(role, one))} | {_cell(one.revision or '')} "
        f"| {sum(file.bytes for file in one.files):,} |"
        for role, one in sorted(manifest.inputs.items())
    ]
    return "\n".join(["## Inputs", "", "| role | what | revision | bytes |", "| --- | --- | --- | ---: |", *rows])


def _recipe(manifest: Manifest) -> list[str]:
    return [] if manifest.recipe is None else [f"## Recipe\n\n{_fenced(_yaml(manifest.recipe), 'yaml')}"]


def _rounding(rounding: Rounding) -> str:
    how = f"{rounding.mode} rounding" + (f", seed {rounding.seed}" if rounding.seed is not None else "")
    lines = ["## Rounding", "", f"Computed in float32 and stored as {rounding.dtype} ({how})."]
    if rounding.relative_error is not None:
        lines[-1] += f" Rounding changed the intended step by {rounding.relative_error:.2%} of its norm."
    if rounding.worst:
        lines += ["", "| most affected tensor | relative error |", "| --- | ---: |"]
        lines += [
            f"| {_cell(tensor.name)} | {'' if tensor.relative_error is None else f'{tensor.relative_error:.2%}'} |"
            for tensor in rounding.worst
        ]
    return "\n".join(lines)


def _notes(notes: Iterable[str]) -> list[str]:
    listed = "\n".join(f"- {_one_line(note)}" for note in notes)
    return [f"## Notes\n\n{listed}"] if listed else []


def _yaml(value: Mapping[str, object]) -> str:
    """The mapping as YAML in readable Unicode, escaped where a rare character would not be read back as written."""
    text = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=100)
    return text if yaml.safe_load(text) == dict(value) else yaml.safe_dump(dict(value), sort_keys=False, width=100)


def _fenced(text: str, language: str = "") -> str:
    """`text` as a code block that nothing inside it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")
