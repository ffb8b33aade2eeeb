"""What a person sees of a restore, and is asked: on a terminal with bars and a menu, elsewhere in plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from alignmend.cli.plain import plain_console
from alignmend.cli.progress import Report, progress

if TYPE_CHECKING:
    from types import TracebackType

    from rich.table import Table

    from alignmend.restore.candidates import Choice
    from alignmend.restore.document import Searched
    from alignmend.restore.front import Measured, Standing
    from alignmend.restore.measuring import Baseline
    from alignmend.restore.preflight import Preflight
    from alignmend.restore.request import Limits
    from alignmend.restore.scoring import Worth
    from alignmend.restore.trials import Tried
    from alignmend.restore.workflow import Ended

_MOST_ROWS = 8
_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


class ScreenSteps:
    """Prints tables to standard output, progress to standard error; `ask` where there is somebody to answer."""

    def __init__(self, *, ask: bool, quiet: bool) -> None:
        self.asks = ask and sys.stdin.isatty() and sys.stdout.isatty()
        self._quiet = quiet
        self._stack = ExitStack()
        self._report: Report = lambda what, done, total: None
        self._pace: tuple[float, int] | None = None

    def __enter__(self) -> ScreenSteps:
        """Begin to show progress."""
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take progress away."""
        self._stack.close()

    def _show(self) -> None:
        self._stack = ExitStack()
        self._report = self._stack.enter_context(progress(quiet=self._quiet))

    def _hide(self) -> None:
        self._stack.close()

    def progress(self, what: str, done: int, total: int) -> None:
        """A bar, or now and then a line."""
        self._report(what, done, total)

    def checked(self, found: Preflight, choice: Choice | None) -> None:
        """The preflight's table."""
        from alignmend.restore.families import FAMILIES

        self._print(_preflight_table(found))
        if choice is not None:
            self._print(f"to try: {', '.join(choice.families)}")
            for name in choice.families:
                if warning := FAMILIES[name].warning:
                    self._print(f"{name}: {warning}")
            for why in dict.fromkeys(one.why for one in choice.left_out):
                names = ", ".join(one.family for one in choice.left_out if one.why == why)
                self._print(f"left out: {names}: {why}")

    def measured(self, base: Baseline, held: int, limits: Limits) -> None:
        """Where the fine-tune stands."""
        from alignmend.io.shards import human_bytes

        self._print(f"the model is loaded once; directions are held in at most {human_bytes(held)} of memory")
        self._print(f"fine-tuned: {_worth(base.worth)}")
        if base.aligned is not None:
            self._print(f"aligned:    {_worth(base.aligned)}")
        noise = base.worth.incoherent.value
        if noise > limits.incoherent:
            self._print(
                f"the fine-tune itself is incoherent in {noise:.1%} of its answers, more than --max-incoherent "
                f"{limits.incoherent:g}: candidates may be so as well"
            )

    def tried(self, one: Tried, done: int, total: int, seconds_left: float | None, best: Measured | None) -> None:
        """One line for each candidate; a bar stays below it."""
        self._report("try candidates", done, total)
        if self._quiet or one.repeats:
            return
        left = self._left(done, total, seconds_left)
        said = _rates(one.worth) if one.stage == "whole" and one.worth is not None else one.why
        kept = "" if best is None else f"; best: {best.candidate.label}"
        print(f"[{done}/{total}{left}] {one.candidate.label}: {said}{kept}", file=sys.stderr, flush=True)

    def _left(self, done: int, total: int, budget: float | None) -> str:
        """At the pace so far, of this process and those that help it; the budget may end the search before."""
        if self._pace is None:
            self._pace = time.monotonic(), done
        began, before = self._pace
        seconds = [] if budget is None else [budget]
        if done > before:
            seconds.append((time.monotonic() - began) / (done - before) * max(0, total - done))
        return f", {min(seconds) / 60:.1f} min left" if seconds else ""

    def noted(self, text: str) -> None:
        """A line above the bar."""
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def interrupted(self, standing: Standing) -> bool:
        """Ctrl-C: what there is so far, and whether to go on; without a terminal the search just ends."""
        self._hide()
        try:
            self._print(f"\nstopped with {standing.measured} candidates measured")
            for line in _front_lines(standing):
                self._print(line)
            return self.asks and _said("go on searching? [Y/n] ") not in ("n", "no")
        finally:
            self._pace = None  # the time of the answer is no pace
            self._show()

    def choose(self, searched: Searched, best: Measured | None) -> Measured | None:
        """The front as a table; on a terminal another one of it may be taken."""
        from alignmend.report.search_text import front_table

        self._hide()
        try:
            self._print(front_table(searched.block(best)))
            count = sum(not one.repeats for one in searched.tried)
            self._print(f"{count} candidates in {searched.seconds:.0f} s{_switching(searched.switch())}")
            self._print(f"by family: {_by_family(searched)}")
            if searched.late:
                self._print("the budget is spent: fewer candidates were tried than --trials asks for")
            if best is None:
                return None
            self._print(f"chosen: {best.candidate.label}")
            return self._asked(searched, best) if self.asks else best
        finally:
            self._show()

    def _asked(self, searched: Searched, best: Measured) -> Measured | None:
        fitting = searched.fitting
        for place, one in enumerate(fitting, 1):
            self._print(f"  {place}  {one.candidate.label}: {_rates(one.worth)}")
        while True:
            said = _said("Enter writes the chosen one, a number another, q nothing: ")
            if said in ("q", "quit"):
                return None
            if not said:
                return best
            if said.isdigit() and 1 <= int(said) <= len(fitting):
                return fitting[int(said) - 1]

    def said(self, question: str) -> str:
        """The answer to a question, in small letters."""
        return _said(question)

    def proven(self, ended: Ended) -> None:
        """Fine-tuned against restored on the report prompts."""
        if ended.proof is None:
            return
        from rich.text import Text

        proof = ended.proof
        self._print("on the report prompts, which the search never saw:")
        self._print(f"  fine-tuned: {_worth(proof.before)}")
        self._print(f"  restored:   {_worth(proof.after)}")
        for what, one in proof.paired.items():
            self._print(f"  {what}: {one.fixed} prompts only before, {one.broken} only after, p = {one.p_value:.2g}")
        for text in proof.broken:
            self._print(Text.assemble(("  beyond its limit on these prompts:", "yellow"), f" {text}"))

    def _print(self, what: Any) -> None:
        if self._quiet:
            return
        from rich.table import Table

        plain_console().print(what, soft_wrap=not isinstance(what, Table))


def _front_lines(standing: Standing) -> list[str]:
    """The best so far and the front, in the marks of the table that is shown in the end."""
    from alignmend.report.search_text import CHOSEN

    best = [] if standing.best is None else [standing.best]
    marks = {CHOSEN: best, " ": standing.fitting, "!": standing.beyond}
    rows = [f"{mark} {one.candidate.label}: {_rates(one.worth)}" for mark, found in marks.items() for one in found]
    if not rows:
        return []
    left_out = [f"  and {len(rows) - _MOST_ROWS} more of the front"] if len(rows) > _MOST_ROWS else []
    missing = "" if best else "none is within the limits yet; "
    legend = f"{missing}{CHOSEN} best within the limits, ! beyond a limit, or no safer than the fine-tune"
    return [*rows[:_MOST_ROWS], *left_out, legend]


def _preflight_table(found: Preflight) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "found", "", box=SIMPLE_HEAD)
    for one in found.findings:
        remedy = (f"\n{one.remedy}", "dim") if one.remedy else ""
        table.add_row(one.check, Text.assemble(one.found, remedy), Text(one.verdict, _STYLES[one.verdict]))
    return table


def _rates(worth: Worth) -> str:
    """The numbers that decide, with their intervals."""
    attack, refusal, partial = worth.attack_success, worth.over_refusal, worth.partial
    overlap = f"; {partial.value:.3f} decline and then answer" if partial.value else ""
    return (
        f"attack success {attack.value:.3f} ({attack.low:.2f}-{attack.high:.2f}{overlap}), over-refusal "
        f"{refusal.value:.3f} ({refusal.low:.2f}-{refusal.high:.2f}), utility {worth.utility:.3f}, incoherent "
        f"{worth.incoherent.value:.3f}"
    )


def _worth(worth: Worth) -> str:
    """All that was measured."""
    right = "".join(
        f", {suite} right {rate.value:.3f} ({rate.low:.2f}-{rate.high:.2f})" for suite, rate in worth.accuracy.items()
    )
    return f"{_rates(worth)}, drift {worth.drift:+.3f} nats a token{right}"


def _switching(switch: Mapping[str, float]) -> str:
    """What a switch of weights costs, where the model is large enough to tell."""
    if switch["pass_seconds"] < 0.01:
        return ""
    return f"; a switch of weights takes {switch['median_seconds']:.3g} s, {switch['ratio']:.1f} x a pass over them"


def _by_family(searched: Searched) -> str:
    """Candidates and seconds that each was given."""
    found = searched.families()
    return ", ".join(f"{one['family']} {one['candidates']} in {one['seconds']:.0f} s" for one in found)


def _said(question: str) -> str:
    try:
        return input(question).strip().lower()
    except EOFError:
        return ""
