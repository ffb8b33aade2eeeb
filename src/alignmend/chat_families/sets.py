"""The published sets that a family is built from: read from local copies, never fetched, never shipped.

What trains and what proves come from different sets. Most are known as suites, and are read as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from alignmend.errors import FileFormatError
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites import load_suite
from alignmend.evaluation.suites.definition import get_definition

SUITES = (
    "advbench", "catqa-en", "catqa-vi", "catqa-zh", "dangerousqa", "gsm8k", "harmbench", "harmfulqa", "mbpp", "mmlu-hi",
    "multijail", "simple-safety-tests", "xstest",
)  # fmt: skip
"""Sets that are known as suites of these names; their definitions say where they come from."""


@dataclass(frozen=True)
class PlainSet:
    """A set that no suite is known of: the name of its file, and where it comes from."""

    file: str
    origin: str


PLAIN_SETS: Mapping[str, PlainSet] = MappingProxyType(
    {
        "or-bench": PlainSet("or_bench_hard_part.jsonl", "OR-Bench-Hard-1K, github.com/justincui03/or-bench"),
        "self-instruct": PlainSet("self_instruct_seed_tasks.jsonl", "github.com/tatsu-lab/stanford_alpaca"),
        "truthfulqa": PlainSet("truthfulqa.jsonl", "github.com/sylinrl/TruthfulQA"),
        "gsm8k-train": PlainSet("gsm8k_train_2k.jsonl", "train.jsonl of github.com/openai/grade-school-math"),
        "belle": PlainSet("belle_eval_zh_400.jsonl", "eval/eval_set.json of github.com/LianjiaTech/BELLE"),
        "counterfact": PlainSet("counterfact_compmech_1k.jsonl", "CounterFact, github.com/francescortu/comp-mech"),
    }
)


@dataclass(frozen=True)
class DataFolder:
    """The folder with local copies."""

    path: Path

    def check(self, names: Iterable[str]) -> None:
        """Raise one `FileFormatError` that tells of every set that is missing, and where it comes from."""
        if not self.path.is_dir():
            raise FileFormatError(
                f"{self.path}: not a folder;", advice="give the folder with local copies of published sets"
            )
        missing = [name for name in dict.fromkeys(names) if self._found(name) is None]
        if missing:
            listed = "\n".join(f"  - {' or '.join(_files(name))}: {_origin(name)}" for name in missing)
            raise FileFormatError(
                f"{self.path} lacks {len(missing)} of the published sets that the family is built from (JSONL has one "
                f"object a line with prompt, and answer where there is one):\n{listed}"
            )

    def file(self, name: str) -> Path:
        """Where the set `name` lies; raises `FileFormatError`."""
        found = self._found(name)
        if found is None:
            self.check([name])
            raise AssertionError("check raises for a set that is not there")
        return found

    def sha256(self, name: str) -> str:
        """Of the set's file."""
        return sha256(self.file(name).read_bytes()).hexdigest()

    def prompts(self, name: str, *, split: str = "all", language: str | None = None) -> list[Prompt]:
        """Its prompts in the published order, as suites have them, each text once; a part of the set will do."""
        if name in SUITES:
            suite = load_suite(name, data_dir=self.path, name=name, split=split, language=language, complete=False)
        else:
            suite = load_suite(self.file(name), name=name, split=split, language=language)
        return list({prompt.text.strip().casefold(): prompt for prompt in reversed(suite.prompts)}.values())[::-1]

    def _found(self, name: str) -> Path | None:
        return next((self.path / file for file in _files(name) if (self.path / file).is_file()), None)


def _files(name: str) -> list[str]:
    """Names that the set's file may have."""
    if name in SUITES:
        return [copy.file for copy in get_definition(name).copies if copy.file is not None]
    return [PLAIN_SETS[name].file]


def _origin(name: str) -> str:
    return get_definition(name).how_to_get if name in SUITES else PLAIN_SETS[name].origin
