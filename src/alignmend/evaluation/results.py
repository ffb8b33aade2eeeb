"""`results.json`: the one document that tables, pages and gates read. Its format is `results.schema.json`.

Key order is fixed and nothing in it depends on the time or place, so equal inputs give equal bytes.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError
from alignmend.evaluation.judges import Judge
from alignmend.evaluation.metrics import ALL_SUITES, PairedDifference, Rate, pooled
from alignmend.evaluation.statistics import DRAWS, Z_95
from alignmend.evaluation.suites import Suite
from alignmend.io.atomic import replace_bytes

FORMAT = "alignmend-results-1"
SCHEMA_PATH = Path(__file__).with_name("results.schema.json")
_LONGEST_SAID = 200

Metrics = Mapping[str, Mapping[str, Rate]]


@dataclass(frozen=True)
class SweepPoint:
    """The metrics (suite -> metric -> rate) of one coefficient.

    `variant` names what was restored (`full`, `lora`), `split` the prompts that were asked (`search`, `report`).
    """

    variant: str
    coefficient: float
    split: str
    metrics: Metrics

    def as_dict(self) -> dict[str, Any]:
        """As `results.json` stores it."""
        return {
            "variant": self.variant,
            "coefficient": self.coefficient,
            "split": self.split,
            "suites": _metrics_block(self.metrics),
        }


def results_document(
    models: Mapping[str, Metrics],
    *,
    judge: Mapping[str, Any] | None = None,
    suites: Mapping[str, Any] | None = None,
    groups: Mapping[str, Any] | None = None,
    control: Sequence[SweepPoint] = (),
    paired: Mapping[str, PairedDifference] | None = None,
    judges: Mapping[str, Any] | None = None,
    cross: Mapping[str, Any] | None = None,
    agreement: Sequence[Mapping[str, Any]] = (),
    overlap: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    tuned_on: Sequence[Mapping[str, Any]] = (),
    method: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    proof: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document; blocks without content are left out. `intervals` says how intervals were made.

    `models`: model -> suite -> metric -> rate, in the order to show. `judge` and `suites`: see `judge_block`
    and `suite_blocks`. `groups`: model -> suite -> column -> group -> metric -> rate. `control`: a random
    vector in place of the safety vector. `paired`: a description of the
    comparison -> McNemar. `judges`: rates by further judges of the same answers, `agreement`: how far judges
    agree. `cross`: model -> suite -> coherent, incoherent, empty -> harm label -> count.
    `tuned_on`: suites that trained, fitted or chose anything, `overlap`: `used`: their prompts
    among those reported, `reported`: prompts that two reported suites share.
    `method`: `name`, `equation`, `paper`, and more in words. `provenance`: whatever
    is needed to repeat the run, plain JSON. `search`: what a restore tried, on which prompts, and what it took.
    `proof`: whether the restored model keeps the limits on the reported prompts (`kept`), and which not (`broken`).
    """
    blocks: dict[str, Any] = {
        "judge": dict(judge or {}),
        "suites": dict(suites or {}),
        "groups": _plain(groups or {}),
        "control": [point.as_dict() for point in control],
        "paired": {key: asdict(value) for key, value in (paired or {}).items()},
        "judges": _plain(judges or {}),
        "cross": dict(cross or {}),
        "agreement": [dict(one) for one in agreement],
        "overlap": {found: [dict(one) for one in rows] for found, rows in (overlap or {}).items()},
        "tuned_on": [dict(one) for one in tuned_on],
        "search": _plain(search or {}),
        "proof": dict(proof or {}),
        "method": dict(method or {}),
        "provenance": dict(provenance or {}),
    }
    document: dict[str, Any] = {
        "format": FORMAT,
        "models": {model: _metrics_block(metrics) for model, metrics in models.items()},
        "intervals": {"confidence": 0.95, "wilson_z": Z_95, "bootstrap_draws": DRAWS, "bootstrap_seed": 0},
    }
    return document | {name: block for name, block in blocks.items() if block}


def judge_block(judge: Judge) -> dict[str, str]:
    """Who judged."""
    return {"name": judge.name, "version": judge.version}


def suite_blocks(suites: Sequence[Suite]) -> dict[str, dict[str, Any]]:
    """Size, content hash and, where they are known, kind, licence, origin and transform of every suite."""
    return {suite.name: _suite_block(suite) for suite in suites}


def _suite_block(suite: Suite) -> dict[str, Any]:
    block: dict[str, Any] = {
        "n": len(suite.prompts),
        "sha256": suite.content_hash,
        "kind": suite.kind,
        "licence": suite.licence,
        "transform": suite.transform,
        "origin": None if suite.origin is None else suite.origin.as_dict(),
    }
    return {key: value for key, value in block.items() if value is not None}


def _metrics_block(metrics: Metrics) -> dict[str, Any]:
    """With the pooled pseudo-suite `all` at the end where there are several suites."""
    every = {**metrics, ALL_SUITES: pooled(metrics)} if len(metrics) > 1 else metrics
    return {suite: {name: rate.as_dict() for name, rate in rates.items()} for suite, rates in every.items() if rates}


def _plain(tree: Any) -> Any:
    """Rates and other values with intervals, at the leaves of nested mappings, become dictionaries."""
    if hasattr(tree, "as_dict"):
        return tree.as_dict()
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree


def encode_results(document: Mapping[str, Any]) -> bytes:
    """The bytes of `results.json`: two-space indent, order kept, ASCII escapes (broken responses survive)."""
    return json.dumps(document, indent=2, allow_nan=False).encode("ascii") + b"\n"


def write_results(path: Path, document: Mapping[str, Any]) -> None:
    """Replaces `path` at once: written beside, synced, renamed."""
    replace_bytes(path, encode_results(document))


def read_results(path: Path) -> dict[str, Any]:
    """A `results.json` that this version wrote; `FileFormatError` otherwise."""
    try:
        document = json.loads(path.read_bytes(), parse_constant=_finite, parse_float=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not a results file: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise FileFormatError(f"{path}: format {FORMAT!r} is needed, found {found!r}")
    _check_shape(path, document)
    return document


def _finite(written: str) -> float:
    number = float(written)
    if not math.isfinite(number):
        raise ValueError(f"{written} is no finite number")
    return number


def _check_shape(path: Path, document: dict[str, Any]) -> None:
    """Raises `FileFormatError` with the first place that the schema does not allow."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(results_schema()).iter_errors(document))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the document"
        said = textwrap.shorten(" ".join(error.message.split()), _LONGEST_SAID, placeholder=" ...")
        raise FileFormatError(
            f"{path}: {where}: {said}: it is not as alignmend wrote it;",
            advice="take the file as it was, or measure again",
        )


def results_schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_bytes())
    return schema
