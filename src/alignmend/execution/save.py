"""The one verb that computes: stream an expression into a checkpoint folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from alignmend.algebra.nodes import Rule
from alignmend.algebra.structure import Structure, resolve
from alignmend.algebra.thresholds import Coefficients, Findings, Thresholds
from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import questions_of
from alignmend.execution.description import Description, write_records
from alignmend.execution.files import Files
from alignmend.execution.finding import find, finding_notes
from alignmend.execution.finished import finished
from alignmend.execution.moment_checks import moment_warnings
from alignmend.execution.operands import file_states, operands_of, read_states, refuse_own_input, states, versions
from alignmend.execution.output_dtypes import OutputDtypes, kept_notes, output_dtypes
from alignmend.execution.plan import output_shards
from alignmend.execution.rounding import Rounding, check_rounding
from alignmend.execution.same_scores import same_scores
from alignmend.execution.steps import StepTable
from alignmend.execution.stream import stream
from alignmend.execution.threads import thread_count
from alignmend.io.copies import companions_of, copy_companions
from alignmend.io.file_state import refuse_changed, states_of
from alignmend.io.manifest import Manifest
from alignmend.io.shards import INDEX_NAME, Shard, human_bytes, index_text
from alignmend.io.staging import Staging, check_space, settle, staging

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, bytes (or steps) done, and in all."""
Completion: TypeAlias = Callable[[Path], Sequence[str]]
"""Given the folder in the making, whole but for its records: puts more into it, and returns notes."""


@dataclass(frozen=True)
class Options:
    """How `save` writes. Defaults keep the target's dtypes."""

    dtype: str | None = None
    dtypes: Mapping[str, str] = field(default_factory=dict)
    max_shard_size: str | int = "5GB"
    rounding: Rounding = "nearest"
    seed: int = 0
    """Of stochastic rounding."""
    threads: int | None = None
    resume: bool = False
    overwrite: bool = False
    hash: bool = True
    hash_inputs: bool = False
    allow_nonfinite: bool = False


@dataclass(frozen=True, repr=False)
class Saved:
    """A checkpoint that was written."""

    path: Path
    manifest: Manifest
    steps: StepTable
    """Intended and realised change per tensor."""
    thresholds: Thresholds
    warnings: tuple[str, ...]
    coefficients: Mapping[Rule, Coefficients] = field(default_factory=dict)
    """What rules found, tensor by tensor."""

    def __repr__(self) -> str:
        """Where it lies, how large it is, and how many warnings there are."""
        size = human_bytes(sum(output.bytes for output in self.manifest.outputs))
        warned = f", {len(self.warnings)} warnings" if self.warnings else ""
        return f"Saved({self.path}, {self.manifest.expression}, {size}{warned})"


def save(
    checkpoint: Checkpoint,
    out: str | Path,
    *,
    dtype: str | None = None,
    dtypes: Mapping[str, str] | None = None,
    max_shard_size: str | int = "5GB",
    rounding: Rounding = "nearest",
    seed: int = 0,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    hash: bool = True,
    hash_inputs: bool = False,
    allow_nonfinite: bool = False,
    description: Description | None = None,
    completion: Completion | None = None,
    progress: Progress | None = None,
) -> Saved:
    """Compute `checkpoint` and write it to the folder `out` with everything its target has beside the weights.

    `dtype` is `float32`, `float16` or `bfloat16` (default: each tensor's own); what the target keeps in float32 beside
    a narrower main dtype stays so, unless a pattern of `dtypes` (pattern -> dtype) fits its name. Sums are accumulated
    in float32 in the order of the expression and rounded once, `rounding` `"nearest"` or `"stochastic"` (bfloat16, by
    `seed`). The same expression gives the same bytes for any number of `threads` and any sharding of the inputs. The
    folder appears whole or not at all; `resume` continues a killed run to the same bytes and leaves a finished one as
    it is, `overwrite` replaces what is there. `completion` is called when all weights are written, and may add
    files. `hash` puts a SHA-256 of every output file into the manifest, `hash_inputs` also one of every input.

    Raises `MismatchError`, `NonFiniteError` (unless `allow_nonfinite`), `OutputError`, `FileFormatError`.
    """
    options = Options(
        dtype,
        dtypes or {},
        max_shard_size,
        rounding,
        seed,
        threads,
        resume,
        overwrite,
        hash,
        hash_inputs,
        allow_nonfinite,
    )
    run = _Run(checkpoint, Path(out), options, description or Description(), progress or _silent)
    run.completion = completion
    return run.run()


def _silent(what: str, done: int, total: int) -> None:
    pass


class _Run:
    """One call of `save`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        out: Path,
        options: Options,
        description: Description,
        progress: Progress,
    ) -> None:
        self.checkpoint = checkpoint
        self.out = out
        self.options = options
        self.description = description
        self.progress = progress
        self.completion: Completion | None = None
        self.told: tuple[str, ...] = ()
        """What is to be said of the scores and moments."""
        self.kept: tuple[str, ...] = ()
        """What is to be said of tensors in another dtype than was asked for."""
        self.threads = thread_count(options.threads)
        self.inputs = operands_of(checkpoint)
        self.companions = companions_of(checkpoint.root.folder, checkpoint.speaker)
        self.read = read_states(self.inputs) | states_of(self.companions.values())

    def run(self) -> Saved:
        structure = resolve(self.checkpoint)
        dtypes = output_dtypes(self.checkpoint, structure, self.options.dtype, self.options.dtypes)
        shards = output_shards(structure, dtypes, self.options.max_shard_size)
        check_rounding(self.options.rounding, frozenset(_float_dtypes(structure, dtypes)))
        self.kept = kept_notes(structure, dtypes, self.options.dtype)
        refuse_own_input(self.out, self.inputs)
        if self.options.resume and (done := self._finished(shards)) is not None:
            settle(self.out, self.description.sweep)
            return Saved(self.out, done, StepTable(()), {}, self.description.warnings)
        with staging(
            self.out,
            key=self._key(shards),
            resume=self.options.resume,
            overwrite=self.options.overwrite,
            sweep=self.description.sweep,
        ) as stage:
            if not stage.resumed:
                check_space(stage.path, sum(shard.size for shard in shards))
            with Files() as files:
                self.told = (*same_scores(self.checkpoint, files), *moment_warnings(self.checkpoint, files))
                found = self._find(files)
                final = resolve(self.checkpoint, found)
                steps = stream(final, shards, stage, files, dtypes=dtypes, options=self.options, progress=self.progress)
            manifest = self._finish(stage, structure, shards, steps, found)
            refuse_changed(self.read)
            stage.publish(self.options.overwrite)
        warnings = (*self.description.warnings, *self.told, *steps.warnings())
        return Saved(self.out, manifest, steps, found.cuts, warnings, found.coefficients)

    def _finished(self, shards: tuple[Shard, ...]) -> Manifest | None:
        """What an earlier run has finished: then there is nothing left to resume."""
        sizes = {shard.file: shard.size for shard in shards}
        done = finished(self.out, self.checkpoint, self.description, sizes, self.companions)
        if done is None or not all(_begins(self.out / shard.file, shard.header) for shard in shards):
            return None
        mode = (self.options.rounding, self.options.seed if self.options.rounding == "stochastic" else None)
        same_rounding = done.rounding is None or (done.rounding.mode, done.rounding.seed) == mode
        return done if same_rounding else None

    def _find(self, files: Files) -> Findings:
        questions = questions_of(self.checkpoint.change) if self.checkpoint.change is not None else ()
        if questions:
            self.progress("rank", 0, len(questions))
        return find(self.checkpoint.change, self.checkpoint.root, files, self.threads)

    def _finish(
        self,
        stage: Staging,
        structure: Structure,
        shards: tuple[Shard, ...],
        steps: StepTable,
        found: Findings,
    ) -> Manifest:
        target = self.checkpoint.root.folder
        copy_companions(target, stage.path, dtype=self.options.dtype, adapter=self.checkpoint.speaker)
        if len(shards) > 1:
            total = sum(shard.size - len(shard.header) for shard in shards)
            (stage.path / INDEX_NAME).write_text(index_text(shards, total), encoding="utf-8")
        added = self.completion(stage.path) if self.completion is not None else ()
        self.progress("hash", 0, 1)
        return write_records(
            stage.path,
            self.checkpoint,
            self.description,
            out=self.out,
            rounding=steps.rounding(self.options.rounding, self.options.seed),
            patches=steps.patches,
            notes=(*structure.notes, *self.kept, *self.told, *finding_notes(found), *steps.warnings(), *added),
            hash=self.options.hash,
            hash_inputs=self.options.hash_inputs,
        )

    def _key(self, shards: tuple[Shard, ...]) -> str:
        """Of everything that the bytes depend on: only a run with the same key may be resumed."""
        options = (self.options.dtype, self.options.rounding, self.options.seed, self.options.allow_nonfinite)
        described = repr(
            (
                (self.checkpoint.root, self.checkpoint.change),  # whole: a `repr` of the point names its folders alone
                options,
                file_states(self.inputs),
                [*zip(self.companions, states(self.companions.values()), strict=True)],
                [shard.header for shard in shards],
                versions(),
                self.description.data,
            )
        )
        return hashlib.sha256(described.encode()).hexdigest()


def _begins(path: Path, header: bytes) -> bool:
    """Whether the file holds these tensors: sizes alone do not tell one dtype from another."""
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _float_dtypes(structure: Structure, dtypes: OutputDtypes) -> set[str]:
    return {dtypes[plan.name] for plan in structure.tensors if plan.change is not None}
