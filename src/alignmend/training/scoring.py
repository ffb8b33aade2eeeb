"""A whole scoring run: model and pairs in, a file or folder of scores out, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any

from torch import Tensor

from alignmend.errors import MismatchError, ParameterError, missing_extra

try:
    from transformers import AutoTokenizer
except ImportError as error:
    raise missing_extra("transformers", "train") from error

from alignmend.execution.threads import few_threads
from alignmend.io.atomic import no_empty_folders
from alignmend.io.folder import CheckpointFolder, open_checkpoint_folder
from alignmend.io.identity import identity
from alignmend.io.manifest import Input, Manifest, Versions
from alignmend.io.pretrained import pretrained
from alignmend.training.encoding import Encoded, encode
from alignmend.training.importance import Tick, WeightOf, rows_for, snip, wanda
from alignmend.training.loading import quiet
from alignmend.training.loop import TokenRow
from alignmend.training.opened import OpenedModel, float_network, merged_folder, open_model, refuse_own_input
from alignmend.training.pairs import PairsFile, read_pairs
from alignmend.training.score_files import begin, check_place, publish, score_stage
from alignmend.training.score_settings import ScoreSettings
from alignmend.training.scored import Target, groups_of, targets_of, unscored_matrices

Progress = Callable[[str, int, int], None]
_LIBRARIES = ("torch", "transformers", "safetensors")


@dataclass(frozen=True)
class Scored:
    """Scores that were written."""

    path: Path
    manifest: Manifest
    tensors: int
    weights: int
    """How many weights have a score."""


@dataclass(frozen=True)
class _Inputs:
    """What is scored, and perhaps the model before patching."""

    model: OpenedModel
    base: CheckpointFolder | None

    @property
    def described(self) -> dict[str, Input]:
        found = self.model.described
        if self.base is not None:
            found["base"] = Input.model_validate(identity(self.base))
        return found


def write_scores(
    model: str | Path,
    data: Path,
    out: Path,
    settings: ScoreSettings | None = None,
    *,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Scored:
    """Score the weights of `model` for the answers of the pairs file `data`, and write them to `out`.

    `model` is a folder or hub id, or the folder of an adapter or a stored delta, whose own base is then what it is
    merged into; `adapter` is one that is merged into `model`, in float32, before anything is scored. `base` is the
    model before patching, which `weights` `base` (scored in place of `model`) and `patch` need; of an adapter it is
    known. `out` that ends in `.safetensors` is one file with the manifest in its header, anything else a folder.
    `am.open_scores` reads both.
    The same arguments give the same bytes with one thread on one platform. Raises `FileFormatError`, `MismatchError`,
    `ParameterError`, `OutputError`, and `NonFiniteError` where a score is no number.
    """
    chosen, out = settings or ScoreSettings(), Path(out)
    inputs, file = _inputs(model, adapter, base, chosen), read_pairs(Path(data))
    refuse_own_input(out, [inputs.model], [file.path, *([inputs.base.path] if inputs.base is not None else [])])
    with no_empty_folders(out.absolute().parent):
        check_place(out, overwrite=overwrite)
        return _written(inputs, file, out, chosen, overwrite=overwrite, progress=progress)


def _written(
    inputs: _Inputs, file: PairsFile, out: Path, chosen: ScoreSettings, *, overwrite: bool, progress: Progress | None
) -> Scored:
    with score_stage(out, overwrite=overwrite) as stage, quiet():
        scored = OpenedModel(inputs.base, None) if chosen.weights == "base" and inputs.base else inputs.model
        with merged_folder(scored, stage.path / "merged") as folder:
            encoded = _encoded(folder, file, chosen)
            network = float_network(folder.path)
            targets = targets_of(network, folder, chosen)
            manifest = _manifest(inputs, file, encoded, chosen, unscored_matrices(targets, folder))
            shapes = [(target.name, tuple(target.parameter.shape)) for target in targets]
            files = begin(stage, shapes, chosen.dtype, manifest, out)
            rows, weight = rows_for(encoded.rows, chosen.tokens), _weight(inputs, chosen, targets)
            with few_threads(network):
                for scores in _Pass(network, rows, chosen, weight, progress).scores(targets):
                    files.write(scores)
        complete = publish(stage, files, manifest, out, overwrite=overwrite)
    return Scored(out, complete, len(targets), sum(target.parameter.numel() for target in targets))


def _inputs(model: str | Path, adapter: str | Path | None, base: str | Path | None, settings: ScoreSettings) -> _Inputs:
    opened = open_model(model, adapter, base)
    before = None if base is None else open_checkpoint_folder(base)
    if settings.weights != "patched" and before is None:
        if opened.adapter is None:
            raise ParameterError(
                f"weights {settings.weights!r} need the model before patching", advice="give it as base"
            )
        before = opened.folder
    return _Inputs(opened, before if settings.weights != "patched" else None)


def _encoded(folder: CheckpointFolder, file: PairsFile, settings: ScoreSettings) -> Encoded:
    """As many pairs as were asked for, drawn where there are more, in the file's order."""
    indices = range(len(file.pairs))
    if len(indices) > settings.samples:
        drawn = sorted(Random(f"scores {settings.seed}").sample(indices, settings.samples))
        file = PairsFile(file.path, tuple(file.pairs[index] for index in drawn), file.sha256)
    tokenizer = pretrained(AutoTokenizer, folder.path)
    longest = folder.config.get("max_position_embeddings")
    limit = min(settings.max_length, longest) if isinstance(longest, int) else settings.max_length
    return encode(tokenizer, file, template=settings.template, max_length=limit)


def _weight(inputs: _Inputs, settings: ScoreSettings, targets: Sequence[Target]) -> WeightOf | None:
    if settings.weights != "patch":
        return None
    if inputs.base is None:
        raise TypeError("inputs.base is None")
    base, patched = inputs.base, {target.name: target.parameter for target in targets}

    def patch(name: str) -> Tensor:
        from safetensors import safe_open

        entry = base.tensors.get(name)
        if entry is None or entry.shape != tuple(patched[name].shape):
            raise MismatchError(f"{base.location} has no {name} of shape {list(patched[name].shape)}: is it the base?")
        with safe_open(entry.path, framework="pt") as file:
            before: Tensor = file.get_tensor(name).float()
        return patched[name].detach().to("cpu") - before

    return patch


@dataclass(frozen=True)
class _Pass:
    """What every pass over the rows needs."""

    network: Any
    rows: Sequence[TokenRow]
    settings: ScoreSettings
    weight: WeightOf | None
    progress: Progress | None

    def scores(self, targets: Sequence[Target]) -> Iterator[dict[str, Tensor]]:
        """The scores of one group of layers after the other."""
        groups = groups_of(targets, self.settings.layers_at_once)
        done, total = 0, len(groups) * len(self.rows)

        def tick() -> None:
            nonlocal done
            done += 1
            if self.progress is not None:
                self.progress(self.settings.method, done, total)

        for group in groups:
            yield self._group(group, tick)

    def _group(self, group: Sequence[Target], tick: Tick) -> dict[str, Tensor]:
        size = self.settings.batch_size
        if self.settings.method == "wanda":
            return wanda(self.network, self.rows, group, batch_size=size, tick=tick)
        order = self.settings.order
        return snip(self.network, self.rows, group, order=order, batch_size=size, weight=self.weight, tick=tick)


def _manifest(
    inputs: _Inputs, file: PairsFile, encoded: Encoded, settings: ScoreSettings, unscored: Sequence[str]
) -> Manifest:
    notes = []
    if encoded.shortened:
        notes.append(f"{encoded.shortened} answers were cut at {settings.max_length} tokens")
    if unscored and not settings.kinds:
        notes.append(f"{len(unscored)} matrices inside layers have no scores, such as {unscored[0]}")
    return Manifest(
        versions=Versions(
            alignmend=metadata.version("alignmend"), libraries={name: metadata.version(name) for name in _LIBRARIES}
        ),
        expression=f"{settings.method} scores of the {settings.weights} weights on {len(encoded.rows)} pairs",
        parameters={
            **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()},
            "template": encoded.template,
            "pairs": {"file": file.path.name, "sha256": file.sha256, "rows": len(file.pairs)},
            "scored_rows": len(encoded.rows),
            "answer_tokens": encoded.answer_tokens,
        },
        inputs=inputs.described,
        notes=notes,
    )
