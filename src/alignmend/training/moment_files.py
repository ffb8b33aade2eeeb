"""Moments on disk: one safetensors file, each matrix written into its place when it is known, then renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from alignmend.errors import FileFormatError
from alignmend.io.manifest import Manifest, manifest_bytes
from alignmend.io.moments import METADATA_KEY, MomentsRecord, TextKind, tensor_name
from alignmend.io.session import header_of
from alignmend.io.shards import OutputTensor, Shard, plan_shards
from alignmend.io.staging import Staging, check_space, sync
from alignmend.training.observing import stored_shape
from alignmend.training.score_files import METADATA_KEY as MANIFEST_KEY
from alignmend.training.score_files import ScoreFiles, with_metadata

RUN_KEY = "run"
"""Where the header says which run wrote it, so that a finished one is known again."""
_JOURNAL = "journal"


@dataclass(frozen=True)
class MomentFile:
    """A file of the right size, to be filled matrix by matrix."""

    files: ScoreFiles
    journal: Path
    done: frozenset[str]

    def has(self, kind: TextKind, group: int) -> bool:
        """Whether an earlier run has written the moments of a kind in this group of layers."""
        return f"{kind} {group}" in self.done

    def write(self, kind: TextKind, group: int, moments: Mapping[str, Tensor]) -> None:
        """Put the moments of one kind of text, by site, into their places; noted when they are on the disk."""
        self.files.write({tensor_name(kind, site): moment for site, moment in moments.items()})
        sync(self.files.folder / self.files.shards[0].file)
        with self.journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{kind} {group}\n")


def begin(stage: Staging, record: MomentsRecord, widths: Mapping[str, int], manifest: Manifest, run: str) -> MomentFile:
    """A file with its header and room for all matrices; what an earlier run has written of the same one stays."""
    shard = planned(record, widths, manifest, run)
    path, journal = stage.path / shard.file, stage.work / _JOURNAL
    done: frozenset[str] = frozenset()
    if stage.resumed and journal.is_file() and _begins(path, shard.header):
        done = frozenset(journal.read_text(encoding="utf-8").split("\n")[:-1])
        journal.write_text("".join(f"{line}\n" for line in sorted(done)), encoding="utf-8")
    else:
        journal.unlink(missing_ok=True)
        check_space(stage.path, shard.size)
        with path.open("wb") as file:
            file.write(shard.header)
            file.truncate(shard.size)
    return MomentFile(ScoreFiles(stage.path, (shard,), "float32"), journal, done)


def planned(record: MomentsRecord, widths: Mapping[str, int], manifest: Manifest, run: str) -> Shard:
    """Where every matrix of a file goes, and its header."""
    tensors = [
        OutputTensor(tensor_name(kind, site), "F32", stored_shape(widths[site], texts.positions))
        for site in record.sites
        for kind, texts in record.kinds.items()
    ]
    (whole,) = plan_shards(tensors, 1 << 62)
    texts = {
        MANIFEST_KEY: manifest_bytes(manifest).decode(),
        METADATA_KEY: record.model_dump_json(),
        RUN_KEY: run,
    }
    return with_metadata(whole, texts)


def publish(stage: Staging, out: Path) -> None:
    """Give the one file in `stage` its name."""
    (path,) = (one for one in stage.path.iterdir() if one.is_file())
    sync(path)
    path.replace(out)
    sync(out.parent)
    stage.discard()


def run_of(path: Path) -> str | None:
    """Which run wrote the file; None for anything else."""
    try:
        return header_of(path).metadata.get(RUN_KEY)
    except FileFormatError:
        return None


def _begins(path: Path, header: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(header)) == header
    except OSError:
        return False
