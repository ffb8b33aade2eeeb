"""How each edit shifts a model's safety: suites asked before the first edit and after every one, compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignmend.evaluation.judges import Judge
    from alignmend.evaluation.records import JudgementRow
    from alignmend.evaluation.suites import Suite

SHIFTED = ("attack_success_rate", "over_refusal_rate", "incoherent_rate", "empty_rate")


class SafetyWatch:
    """Called with the number of edits in the model; keeps what the judge said of the model's answers then."""

    def __init__(
        self, model: Any, tokenizer: Any, suites: Sequence[Suite], judge: Judge, *, separately: bool = False
    ) -> None:
        self._model, self._tokenizer, self._suites, self._judge = model, tokenizer, suites, judge
        self._separately = separately
        self._seen: list[tuple[JudgementRow, ...]] = []

    def __call__(self, number: int) -> None:
        from alignmend.evaluation.generation import TransformersBackend
        from alignmend.evaluation.run import evaluate

        backend = TransformersBackend(self._model, self._tokenizer, name=f"{number} edits")
        self._seen.append(evaluate(backend, self._suites, self._judge).judgements)

    def into(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """`document` of `edits.json` with `safety` in every edit and, for a sequence, in all."""
        edits = [{**edit, "safety": self._shift(number)} for number, edit in enumerate(document["edits"], start=1)]
        whole = {} if self._separately else {"safety": self._between(0, len(edits))}
        judge = {"name": self._judge.name, "version": self._judge.version}
        return {**document, "edits": edits, **whole, "judge": judge}

    def _shift(self, number: int) -> list[dict[str, Any]]:
        return self._between(0 if self._separately else number - 1, number)

    def _between(self, first: int, second: int) -> list[dict[str, Any]]:
        from alignmend.evaluation.changes import changes
        from alignmend.evaluation.pairing import pair_rows

        pairs, _ = pair_rows(self._seen[first], self._seen[second])
        return [change.as_dict() for change in changes(pairs, SHIFTED)]
