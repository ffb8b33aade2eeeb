"""A whole scoring run: model and pairs in, a file or folder of scores out, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from alignmend.algebra.opening import open_adapter, open_checkpoint, open_delta
from alignmend.errors import MismatchError, OutputError, ParameterError, missing_extra

try:
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    raise missing_extra("transformers", "train") from error

from alignmend.execution.save import save
from alignmend.execution.threads import few_threads
from alignmend.io.adapter import open_adapter_folder
from alignmend.io.atomic import no_empty_folders
from alignmend.io.delta import is_delta_folder, open_delta_folder
from alignmend.io.folder import CheckpointFolder, is_adapter_folder, open_checkpoint_folder
from alignmend.io.identity import identity
from alignmend.io.manifest import Input, Manifest, Versions
from alignmend.io.pretrained import pretrained
from alignmend.io.private import mark_private
from alignmend.training.encoding import Encoded, encode
from alignmend.training.importance import Tick, WeightOf, rows_for, snip, wanda
from alignmend.training.loading import has_gpu, quiet
from alignmend.training.loop import TokenRow
from alignmend.training.pairs import PairsFile, read_pairs
from alignmend.training.score_files import begin, check_place, publish, score_stage
from alignmend.training.score_settings import ScoreSettings
from alignmend.training.scored import Target, groups_of, targets_of, unscored_matrices

Progress = Callable[[str, int, int], None]
_LIBRARIES = ("torch", "transformers", "safetensors")
_MERGED = "A model with its adapter or delta merged, for as long as it is scored. Delete it when no run is using it."


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
    """What the user named: a checkpoint, perhaps an adapter or a stored delta on it, perhaps what was patched."""

    model: CheckpointFolder
    adapter: str | None
    base: CheckpointFolder | None

    @property
    def described(self) -> dict[str, Input]:
        found = {"model": identity(self.model)}
        if self.adapter is not None:
            is_delta = is_delta_folder(Path(self.adapter))
            found["adapter"] = identity((open_delta_folder if is_delta else open_adapter_folder)(self.adapter))
        if self.base is not None:
            found["base"] = identity(self.base)
        return {role: Input.model_validate(value) for role, value in found.items()}


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
    _refuse_own_input(out, inputs, file)
    with no_empty_folders(out.absolute().parent):
        check_place(out, overwrite=overwrite)
        return _written(inputs, file, out, chosen, overwrite=overwrite, progress=progress)


def _written(
    inputs: _Inputs, file: PairsFile, out: Path, chosen: ScoreSettings, *, overwrite: bool, progress: Progress | None
) -> Scored:
    with score_stage(out, overwrite=overwrite) as stage, quiet():
        with _scored_folder(inputs, chosen, stage.path / "merged") as folder:
            encoded = _encoded(folder, file, chosen)
            network = _network(folder.path)
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
    if (is_delta := is_delta_folder(Path(model))) or is_adapter_folder(Path(model)):
        if adapter is not None:
            already = "a stored delta" if is_delta else "an adapter already"
            raise ParameterError(f"{model} is {already}: give the model that both are for, and one adapter")
        named = open_delta_folder(model).target.location if is_delta else open_adapter_folder(model).base
        adapter = model
        model = base if base is not None else (named or "")
        if not model:
            raise ParameterError(f"{adapter} does not name its base model: give it as base")
    folder = open_checkpoint_folder(model)
    before = None if base is None else open_checkpoint_folder(base)
    if settings.weights != "patched" and before is None:
        if adapter is None:
            raise ParameterError(f"weights {settings.weights!r} need the model before patching: give it as base")
        before = folder
    return _Inputs(folder, None if adapter is None else str(adapter), before if settings.weights != "patched" else None)


def _refuse_own_input(out: Path, inputs: _Inputs, file: PairsFile) -> None:
    paths = [inputs.model.path, file.path, *(header.path for header in inputs.model.headers)]
    paths += [Path(inputs.adapter)] if inputs.adapter is not None else []
    paths += [inputs.base.path] if inputs.base is not None else []
    place = out.resolve()
    if any(path.resolve() == place or place in path.resolve().parents for path in paths):
        raise OutputError(f"{out} holds a model or the pairs, which would be replaced: write to another place")


@contextmanager
def _scored_folder(inputs: _Inputs, settings: ScoreSettings, place: Path) -> Iterator[CheckpointFolder]:
    """The checkpoint whose gradients are taken; one with an adapter is merged in float32 into `place` meanwhile."""
    if settings.weights == "base":
        assert inputs.base is not None
        yield inputs.base
    elif inputs.adapter is None:
        yield inputs.model
    else:
        import shutil

        point = open_checkpoint(inputs.model.path)
        is_delta = is_delta_folder(Path(inputs.adapter))
        part = open_delta(inputs.adapter, target=point) if is_delta else open_adapter(inputs.adapter, base=point)
        merged = point + part
        place.mkdir()
        mark_private(place, _MERGED)
        save(merged, place / "model", dtype="float32", hash=False)
        try:
            yield open_checkpoint_folder(place / "model")
        finally:
            shutil.rmtree(place)


def _network(path: Path) -> Any:
    network = pretrained(AutoModelForCausalLM, path, dtype=torch.float32)
    return network.to("cuda" if torch.cuda.is_available() else "mps" if has_gpu() else "cpu").eval()


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
    assert inputs.base is not None
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
