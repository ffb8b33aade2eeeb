"""A whole run of `alignmend moments`: a model and texts in, a file of input moments out, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from alignmend.errors import OutputError, ParameterError, missing_extra

try:
    from transformers import AutoTokenizer
except ImportError as error:
    raise missing_extra("transformers", "train") from error

from alignmend.execution.moment_checks import few_texts, fingerprints
from alignmend.execution.threads import few_threads
from alignmend.io.atomic import no_empty_folders
from alignmend.io.folder import CheckpointFolder
from alignmend.io.manifest import Manifest, Versions
from alignmend.io.moments import MomentsRecord, TextKind, TextRecord, WeightRecord, open_moments_file
from alignmend.io.pretrained import pretrained
from alignmend.io.private import is_private
from alignmend.io.staging import Staging, staging
from alignmend.training.encoding import encode_prompts
from alignmend.training.loading import quiet
from alignmend.training.moment_files import MomentFile, begin, publish, run_of
from alignmend.training.moment_settings import MomentSettings
from alignmend.training.moment_texts import Answers, Files, Texts, encode_texts, read_texts, without_answers
from alignmend.training.observing import observe, positions_in
from alignmend.training.opened import OpenedModel, float_network, merged_folder, open_model, refuse_own_input
from alignmend.training.own_answers import own_answers
from alignmend.training.sites import Site, sites_of, unseen_matrices

Progress = Callable[[str, int, int], None]
_LIBRARIES = ("torch", "transformers", "safetensors")


@dataclass(frozen=True)
class Observed:
    """A file of moments that was written."""

    path: Path
    manifest: Manifest
    record: MomentsRecord


def write_moments(
    model: str | Path,
    out: str | Path,
    *,
    harmful: str | Path | None = None,
    harmless: str | Path | None = None,
    borderline: str | Path | None = None,
    settings: MomentSettings | None = None,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    aligned: str | Path | None = None,
    use_own_answers: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Observed:
    """Take the second moments of what enters the linear layers of `model`, and write them to `out`, a safetensors file.

    `model` is what is to be made safe: a folder or hub id, or the folder of an adapter or a stored delta, which is
    merged into its base (or `base`) in float32 meanwhile; `adapter` is one that is merged into `model`. `harmful`,
    `harmless` and `borderline` are files of pairs, at least one of them: harmful prompts with refusals, the others with
    answers that comply. Harmful prompts without an answer get that of `aligned`, others with `use_own_answers` the
    model's own. `merge_moments` puts files over other texts together.
    Each kind of text has its own matrices; weights that share an input share one. `resume` goes on after a run that was
    interrupted, `overwrite` replaces what is at `out`. `alignmend.open_moments` reads it. The same arguments give the
    same bytes with one thread on one platform. Raises `FileFormatError`, `MismatchError`, `ParameterError`,
    `OutputError`, and `NonFiniteError` where an input is no number.
    """
    chosen, place = settings or MomentSettings(), Path(out)
    given = {"harmful": harmful, "harmless": harmless, "borderline": borderline}
    paths: dict[TextKind, Path] = {kind: Path(path) for kind, path in given.items() if path is not None}  # type: ignore[misc]
    if not paths:
        raise ParameterError("there are no texts", advice="give files of harmful, harmless or borderline ones")
    opened, refusing = open_model(model, adapter, base), None if aligned is None else open_model(aligned, None)
    files = read_texts(paths, aligned=refusing is not None, own=use_own_answers or not chosen.answer_limit)
    refuse_own_input(place, [opened, *([refusing] if refusing is not None else [])], list(paths.values()))
    run = _Run(opened, refusing, files, chosen, progress or _silent)
    if resume and place.is_file() and run_of(place) == run.key:
        return _read(place)
    if place.suffix != ".safetensors":
        raise OutputError(f"{place} is to be one file", advice="give a name that ends in .safetensors")
    with no_empty_folders(place.absolute().parent):
        if place.is_dir() or (place.exists() and not overwrite):
            raise OutputError(f"{place} exists", advice="choose another name, or pass --overwrite to replace it")
        hidden = place.with_name(f".{place.name}.moments")
        with staging(hidden, key=run.key, resume=resume) as stage, quiet():
            run.write(stage)
            publish(stage, place)
    return _read(place)


def _read(place: Path) -> Observed:
    file = open_moments_file(place)
    return Observed(place, Manifest.model_validate_json(file.header.metadata["alignmend"]), file.record)


def _silent(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class _Run:
    """One call of `write_moments`."""

    model: OpenedModel
    aligned: OpenedModel | None
    files: Files
    settings: MomentSettings
    progress: Progress

    @property
    def key(self) -> str:
        """Of everything that the bytes depend on: only a run with the same key may be resumed."""
        models = [fingerprints(one.point) for one in (self.model, self.aligned) if one is not None]
        texts = {kind: file.sha256 for kind, file in self.files.items()}
        return hashlib.sha256(repr((models, texts, self.settings, _versions())).encode()).hexdigest()

    def write(self, stage: Staging) -> None:
        """Put the whole file into `stage`."""
        answers = dict(self._answers_of(self.aligned, ("harmful",), stage))
        with self._loaded(self.model, stage) as (folder, network, tokenizer):
            others = [kind for kind in self.files if kind != "harmful"]
            answers.update((kind, self._answers(kind, network, tokenizer)) for kind in others)
            texts = encode_texts(tokenizer, self.files, answers, self.settings)
            sites = sites_of(network, folder, next(iter(texts.rows.values()))[0])
            record = self._record(texts, sites, folder)
            widths = {site.name: site.width for site in sites}
            self._observe(network, texts, sites, begin(stage, record, widths, self._manifest(texts, record), self.key))

    @contextmanager
    def _loaded(self, model: OpenedModel, stage: Staging) -> Iterator[tuple[CheckpointFolder, Any, Any]]:
        with merged_folder(model, stage.path / "merged") as folder:
            network, tokenizer = float_network(folder.path), pretrained(AutoTokenizer, folder.path)
            with few_threads(network):
                yield folder, network, tokenizer

    def _answers_of(
        self, model: OpenedModel | None, kinds: Sequence[TextKind], stage: Staging
    ) -> Iterator[tuple[TextKind, Answers]]:
        asked = [kind for kind in kinds if kind in self.files and without_answers(self.files[kind]).pairs]
        if model is None or not asked:
            return
        with self._loaded(model, stage) as (_, network, tokenizer):
            yield from [(kind, self._answers(kind, network, tokenizer)) for kind in asked]

    def _answers(self, kind: TextKind, network: Any, tokenizer: Any) -> Answers:
        """To the prompts of a kind that have none."""
        prompts = encode_prompts(tokenizer, without_answers(self.files[kind]), template=self.settings.template)
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            self.progress(f"{kind} answers", done, len(prompts))

        limit, size = self.settings.answer_limit, self.settings.batch_size
        if not limit:
            return [()] * len(prompts)
        return own_answers(network, tokenizer, prompts, tokens=limit, batch_size=size, tick=tick)

    def _observe(self, network: Any, texts: Texts, sites: Sequence[Site], file: MomentFile) -> None:
        groups = list(_groups(sites, self.settings.layers_at_once))
        done, total = 0, len(groups) * sum(map(len, texts.rows.values()))

        def tick() -> None:
            nonlocal done
            done += 1
            self.progress("moments", done, total)

        for number, group in enumerate(groups):
            for kind, rows in texts.rows.items():
                if file.has(kind, number):
                    done += len(rows)
                    continue
                positions, size = self.settings.positions, self.settings.batch_size
                file.write(kind, number, observe(network, rows, group, positions=positions, batch_size=size, tick=tick))

    def _record(self, texts: Texts, sites: Sequence[Site], folder: CheckpointFolder) -> MomentsRecord:
        return MomentsRecord(
            positions=self.settings.positions,
            answer_tokens=self.settings.answer_tokens,
            template=texts.template,
            kinds={
                kind: TextRecord(texts=len(rows), positions=positions_in(rows, self.settings.positions))
                for kind, rows in texts.rows.items()
            },
            weights={
                target.name: WeightRecord(site=site.name, transposed=target.transposed)
                for site in sites
                for target in site.targets
            },
            left_out=unseen_matrices(sites, folder),
            fingerprints=fingerprints(self.model.point),
        )

    def _manifest(self, texts: Texts, record: MomentsRecord) -> Manifest:
        inputs = self.model.described
        if self.aligned is not None:
            inputs |= {
                "aligned" if role == "model" else f"aligned {role}": one for role, one in self.aligned.described.items()
            }
        left = record.left_out
        unseen = [f"{len(left)} matrices inside layers have no moments, such as {left[0]}"] if left else []
        return Manifest(
            versions=_versions(),
            expression=f"moments of what enters {len(record.weights)} weights, on {' and '.join(record.kinds)} texts",
            parameters={
                **asdict(self.settings),
                "texts": {
                    kind: {
                        "file": file.path.name,
                        "sha256": file.sha256,
                        "rows": len(file.pairs),
                        "answered by models": len(without_answers(file).pairs),
                    }
                    for kind, file in self.files.items()
                },
            },
            inputs=inputs,
            private=any(is_private(file.path) for file in self.files.values()),
            notes=[*texts.notes, *unseen, *few_texts(record)],
        )


def _versions() -> Versions:
    libraries = {name: metadata.version(name) for name in _LIBRARIES}
    return Versions(alignmend=metadata.version("alignmend"), libraries=libraries)


def _groups(sites: Sequence[Site], layers_at_once: int | None) -> Iterator[tuple[Site, ...]]:
    """The sites that one pass sees."""
    if layers_at_once is None:
        yield tuple(sites)
        return
    found: dict[int, list[Site]] = {}
    for site in sites:
        found.setdefault(site.layer // layers_at_once, []).append(site)
    yield from (tuple(found[number]) for number in sorted(found))
